package mslhttp

import "sync"

// gatherSize is enough for an answer sent with its length, its HTTP header, and TLS
// overhead.
const gatherSize = holdSize + 2<<10

// holds are unused buffers of gatherSize bytes.
var holds = sync.Pool{New: func() any { return new([gatherSize]byte) }}

// newHold returns an empty buffer for gatherSize bytes.
func newHold() []byte { return holds.Get().(*[gatherSize]byte)[:0] }

// freeHold releases a buffer of newHold, to which no more than gatherSize bytes were
// appended.
func freeHold(b []byte) { holds.Put((*[gatherSize]byte)(b[:gatherSize])) }

// A gathering combines several network writes into one: net/http has a buffer of 4 KiB,
// which is too small for most answers.
type gathering struct {
	mu   sync.Mutex
	held []byte // nil: writes are not held back
}

// Write holds back what fits, and sends the rest.
func (b *boundConn) Write(p []byte) (int, error) {
	g := &b.gathering
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		return b.Conn.Write(p)
	}
	if len(g.held)+len(p) <= gatherSize {
		g.held = append(g.held, p...)
		return len(p), nil
	}
	if err := b.sendHeld(); err != nil {
		return 0, err
	}
	return b.Conn.Write(p)
}

// sendHeld stops holding back. If the network does not take the held data, the connection
// is closed, since net/http considers it sent.
func (b *boundConn) sendHeld() error {
	held := b.gathering.held
	b.gathering.held = nil
	if held == nil {
		return nil
	}
	defer freeHold(held)
	if len(held) == 0 {
		return nil
	}
	_, err := b.Conn.Write(held)
	if err != nil {
		b.Conn.Close()
	}
	return err
}

// atOnce calls send, and passes what it writes to the network in one piece, if it is
// short.
func (b *boundConn) atOnce(send func() error) error {
	g := &b.gathering
	g.mu.Lock()
	g.held = newHold()
	g.mu.Unlock()
	err := send()
	g.mu.Lock()
	defer g.mu.Unlock()
	if failed := b.sendHeld(); err == nil {
		err = failed
	}
	return err
}
