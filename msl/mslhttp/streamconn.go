package mslhttp

import (
	"cmp"
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// A StreamConn is a connection of a [StreamServer].
type StreamConn struct {
	net.Conn
	Source string // where the other end is, as in [SourceOf]

	exchange *underWay     // its record among the counted connections; nil on a WebSocket, which has its own
	idle     time.Duration // zero if something else limits a silence
	pinged   bool          // a WebSocket has deadlines of its own
	patience time.Duration // until a sender has proven its identity; negative means no limit
	cancel   context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer   // until then; nil if there is no limit
	between bool          // between two messages
	proven  bool          // a sender on this connection was authenticated
	leaving chan struct{} // closed when the server shuts down
	coming  chan struct{} // closed when there is data to read; nil if not requested
	ahead   [1]byte       // read to find out
	got     int
	failed  error
}

func (c *StreamConn) begin(patience time.Duration, cancel context.CancelCauseFunc) {
	c.patience, c.cancel, c.leaving = patience, cancel, make(chan struct{})
	if patience > 0 {
		c.timer = time.AfterFunc(patience, func() { c.End(ErrTimeout) })
	}
}

// end stops watching the connection.
func (c *StreamConn) end() {
	c.mu.Lock()
	coming := c.coming
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	if coming != nil { // nobody will read what comes
		c.cut()
		<-coming
	}
}

// End ends the connection, and its server's context with that cause.
func (c *StreamConn) End(cause error) {
	c.cancel(cause)
	c.cut()
}

// cut closes the connection. Closing may wait for the peer.
func (c *StreamConn) cut() { go c.Conn.Close() }

// Leaving is closed when the server shuts down: anything that waits for the application
// on this connection must end.
func (c *StreamConn) Leaving() <-chan struct{} { return c.leaving }

// leave ends the connection if it is between two messages, or as soon as it is.
func (c *StreamConn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.leaving)
	if c.between {
		c.cut()
	}
}

func (c *StreamConn) isLeaving() bool {
	select {
	case <-c.leaving:
		return true
	default:
		return false
	}
}

// Between records that everything read so far is answered. See [msl.Server.ServeStream].
func (c *StreamConn) Between() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.between = true
	if c.isLeaving() {
		c.cut()
	}
	switch {
	case c.timer == nil:
	case c.proven:
		c.timer.Stop()
	default:
		c.timer.Reset(c.patience)
	}
}

// comes records that a message begins.
func (c *StreamConn) comes() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.between && c.timer != nil {
		c.timer.Reset(c.patience)
	}
	c.between = false
}

// Proven records that the sender of the current message proved its identity.
func (c *StreamConn) Proven() {
	c.exchange.prove()
	if p, ok := c.Conn.(interface{ Proven() }); ok {
		p.Proven()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proven = true; c.timer != nil {
		c.timer.Stop()
	}
}

// Readable returns a channel that is closed when there is data to read, or the connection
// has ended.
func (c *StreamConn) Readable() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.await(func(p []byte) (int, error) { return c.read(p, 0) })
}

// await starts a read ahead, unless one is under way. The connection must be locked.
func (c *StreamConn) await(read func([]byte) (int, error)) <-chan struct{} {
	if c.coming != nil {
		return c.coming
	}
	coming := make(chan struct{})
	c.coming = coming
	go func() {
		c.got, c.failed = read(c.ahead[:])
		close(coming)
	}()
	return coming
}

// Read implements net.Conn. It returns io.EOF if the server shuts down between two
// messages.
func (c *StreamConn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.mu.Lock()
	coming := c.coming
	c.mu.Unlock()
	if coming != nil {
		if !c.pinged && c.idle > 0 {
			c.SetReadDeadline(after(c.idle)) // which the read under way uses
		}
		<-coming
		n, err = copy(p, c.ahead[:c.got]), c.failed
		c.mu.Lock()
		c.coming = nil
		c.mu.Unlock()
	} else {
		n, err = c.read(p, c.idle)
	}
	if n > 0 {
		c.comes()
	}
	return n, err
}

func (c *StreamConn) read(p []byte, idle time.Duration) (int, error) {
	c.exchange.moves(1)
	defer c.exchange.moves(-1)
	if !c.pinged {
		c.SetReadDeadline(after(idle))
	}
	n, err := c.Conn.Read(p)
	if err != nil && c.isLeaving() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.between {
			err = io.EOF
		}
	}
	return n, err
}

// after returns the time after d, or none.
func after(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// Write implements net.Conn.
func (c *StreamConn) Write(p []byte) (int, error) {
	c.exchange.moves(1)
	defer c.exchange.moves(-1)
	if !c.pinged {
		c.SetWriteDeadline(after(cmp.Or(c.idle, defaultIdle)))
	}
	return c.Conn.Write(p)
}
