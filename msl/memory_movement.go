package msl

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A movement records the last read or write for a message. A message doing neither waits
// for its application, not for its sender.
type movement struct {
	mu    sync.Mutex
	since time.Time
	under int // reads and writes under way
	moved int // bytes since then
	pace  int // bytes that count

	began         time.Time // the message
	read, written int64     // bytes of it, and of its answer
}

// crawl is how many bytes from an unauthenticated sender count as movement: otherwise one
// byte now and then would hold the memory.
const crawl = 4 << 10

// begin records the start of a read or write.
func (m *movement) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.under++; m.under == 1 && m.pace <= 1 {
		m.since = time.Now()
	}
}

// end records its end.
func (m *movement) end(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.under--
	if m.moved += n; m.moved >= max(m.pace, 1) {
		m.since, m.moved = time.Now(), 0
	}
}

// restart starts again, with another pace.
func (m *movement) restart(pace int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since, m.moved, m.pace = time.Now(), 0, pace
}

// first is called when a message begins.
func (m *movement) first() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.began, m.read, m.written = time.Now(), 0, 0
}

// came is called when the first object of an awaited message has arrived.
func (m *movement) came() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.began = time.Now()
}

// totals returns what was read and written since the message began.
func (m *movement) totals() (read, written int64, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read, m.written, time.Since(m.began)
}

// readMore counts bytes that were read, and wroteMore bytes that were written.
func (m *movement) readMore(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read += int64(n)
}

func (m *movement) wroteMore(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written += int64(n)
}

// touch records any other activity.
func (m *movement) touch() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since = time.Now()
}

// stalled returns for how long the current read or write has made no progress.
func (m *movement) stalled() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.under == 0 {
		return 0
	}
	return time.Since(m.since)
}

// An inlet is the source of a message. The memory of its objects is counted together.
type inlet struct {
	r       io.Reader
	ctx     context.Context
	account *account
	as      occupant
}

func (i *inlet) Read(p []byte) (n int, err error) {
	i.account.movement.begin()
	defer func() {
		i.account.movement.end(n)
		if i.as == anObject { // relayed data is read once more
			i.account.movement.readMore(n)
		}
	}()
	return i.r.Read(p)
}

// Peek returns the next object of a stream of messages, if it belongs to this one.
func (i *inlet) Peek(most int) (o wire.Object, arrived bool) {
	if stream, ok := i.r.(*messages); ok {
		return stream.peek(most)
	}
	return wire.Object{}, false
}

// Len returns how many more bytes the source expects.
func (i *inlet) Len() int {
	if r, ok := i.r.(interface{ Len() int }); ok {
		return r.Len()
	}
	return 0
}

// Hold counts the buffer for reading.
func (i *inlet) Hold(size int) error { return i.account.hold(i.ctx, i.as, size) }

// An outlet is the destination of an answer.
type outlet struct {
	io.Writer
	movement *movement
}

func (o outlet) Write(p []byte) (n int, err error) {
	o.movement.begin()
	defer func() { o.movement.end(n); o.movement.wroteMore(n) }()
	return o.Writer.Write(p)
}

// Flush makes a buffering transport send.
func (o outlet) Flush() error {
	f, ok := o.Writer.(interface{ Flush() error })
	if !ok {
		return nil
	}
	o.movement.begin()
	defer o.movement.end(0)
	return f.Flush()
}

// HalfDuplex returns what the transport reports about the peer.
func (o outlet) HalfDuplex() bool {
	peer, ok := o.Writer.(halfDuplex)
	return ok && peer.HalfDuplex()
}
