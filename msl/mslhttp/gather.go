package mslhttp

import "sync"

// gatherSize is enough for an answer that is sent with its length, its HTTP header, and
// what TLS adds.
const gatherSize = holdSize + 2<<10

// holds are buffers of gatherSize that no exchange uses.
var holds = sync.Pool{New: func() any { return new([gatherSize]byte) }}

// newHold returns an empty buffer for gatherSize bytes.
func newHold() []byte { return holds.Get().(*[gatherSize]byte)[:0] }

// freeHold lets others use a buffer of newHold, to which no more than gatherSize bytes
// were appended.
func freeHold(b []byte) { holds.Put((*[gatherSize]byte)(b[:gatherSize])) }

// A gathering makes one write to the network of several: net/http has a buffer of 4 KiB,
// which most answers do not fit into.
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

// sendHeld ends the holding back. If the network does not take what was held, the
// connection is closed, since net/http took it for sent.
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

// atOnce calls send, and gives what it writes to the network in one piece, if it is short.
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
