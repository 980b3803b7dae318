package mslhttp

import (
	"context"
	"time"
)

// An underWay is an exchange on a connection, or all that a WebSocket carries. That on a
// connection that nobody counts is nil.
type underWay struct {
	conn   *boundConn
	source string // that it is counted for, or empty
	lasts  bool   // it is a WebSocket, on which reads and writes are all that happens

	// The rest belongs to the lock of the bounds.
	proven bool // the sender proved who he is
	moving int  // reads and writes that have begun and not ended
}

// beginExchange counts an exchange where its connection is one of a trusted proxy. It fails
// where its source has too many.
func beginExchange(ctx context.Context, source string) (u *underWay, ok bool) {
	conn, _ := ctx.Value(boundKey{}).(*boundConn)
	if conn == nil {
		return nil, true
	}
	u = &underWay{conn: conn}
	c := conn.bounds
	_, perSource := c.Limits()
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn.source != "" {
		return u, true
	}
	if full(c.sources[source], perSource) {
		return nil, false
	}
	u.source = source
	c.sources.add(source, 1)
	return u, true
}

// lasting is the exchange as all that a WebSocket carries.
func (u *underWay) lasting() *underWay {
	if u != nil {
		u.change(func() { u.lasts = true })
	}
	return u
}

// prove says that the sender proved who he is.
func (u *underWay) prove() {
	if u != nil {
		u.change(func() { u.proven = true })
	}
}

// moves says that a read or a write begins, and, by what it returns, that it has ended.
func (u *underWay) moves() (ended func()) {
	if u == nil {
		return func() {}
	}
	u.change(func() { u.moving++ })
	return func() { u.change(func() { u.moving-- }) }
}

// end says that the answer is out.
func (u *underWay) end() {
	if u == nil {
		return
	}
	u.change(func() {
		u.proven = false
		u.conn.bounds.sources.add(u.source, -1)
		u.conn.happened()
	})
}

// change changes what is known of the exchange, and what the connection counts of it.
func (u *underWay) change(f func()) {
	c := u.conn.bounds
	c.mu.Lock()
	defer c.mu.Unlock()
	u.count(-1)
	f()
	u.count(1)
	if u.proven || u.lasts {
		u.conn.happened()
	}
}

func (u *underWay) count(n int) {
	if !u.proven {
		return
	}
	if u.conn.proven += n; u.moving > 0 {
		u.conn.blocked += n
	}
}

// happened says that something happened on the connection. The bounds are locked.
func (b *boundConn) happened() {
	b.since = time.Now()
	if b.place != nil {
		b.bounds.all.MoveToBack(b.place)
	}
}
