package mslhttp

import (
	"context"
	"time"
)

// An underWay is an exchange on a connection, or everything on a WebSocket. It is nil
// if the connection is not counted.
type underWay struct {
	conn   *boundConn
	source string // that it counts for, or empty
	shares bool   // it shares its connection with exchanges already under way
	lasts  bool   // it is a WebSocket, whose only activity is reads and writes

	// The lock of the connection limits guards the fields below.
	proven bool // the sender proved its identity
	moving int  // reads and writes started but not ended
}

// beginExchange counts an exchange if its connection belongs to a trusted proxy, or is
// already in use by another exchange. It fails if its source, or all together, have too
// many.
func beginExchange(ctx context.Context, source string) (u *underWay, ok bool) {
	conn, _ := ctx.Value(boundKey{}).(*boundConn)
	if conn == nil {
		return nil, true
	}
	u = &underWay{conn: conn}
	c := conn.bounds
	most, perSource := c.Limits()
	c.mu.Lock()
	defer c.mu.Unlock()
	u.shares = conn.under > 0
	switch {
	case conn.source == "": // of a proxy
		u.source = source
	case u.shares:
		u.source = conn.source
	}
	if u.source != "" && full(c.sources[u.source], perSource) || u.shares && full(c.all.Len()+c.streams, most) {
		c.turn(TooManyExchanges, source)
		return nil, false
	}
	c.sources.add(u.source, 1)
	conn.under++
	if u.shares {
		c.streams++
	}
	return u, true
}

// lasting marks the exchange as a WebSocket.
func (u *underWay) lasting() *underWay {
	if u != nil {
		u.change(func() { u.lasts = true })
	}
	return u
}

// prove records that the sender proved its identity.
func (u *underWay) prove() {
	if u != nil {
		u.change(func() { u.proven = true })
	}
}

// moves adds n to the reads and writes under way: 1 when one starts, -1 when it ends.
func (u *underWay) moves(n int) {
	if u != nil {
		u.change(func() { u.moving += n })
	}
}

func (u *underWay) end() {
	if u == nil {
		return
	}
	u.change(func() {
		u.proven = false
		u.conn.bounds.sources.add(u.source, -1)
		u.conn.under--
		if u.shares {
			u.conn.bounds.streams--
		}
		u.conn.happened()
	})
}

// change applies f to the exchange, and updates the counts of its connection.
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

// happened records activity on the connection. The bounds must be locked.
func (b *boundConn) happened() {
	b.since = time.Now()
	if b.place != nil {
		b.bounds.all.MoveToBack(b.place)
	}
}
