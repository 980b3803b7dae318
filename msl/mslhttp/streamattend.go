package mslhttp

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// attention is how often a handler's request is checked for having been read to its end.
const attention = time.Second

// errGone ends the context of a handler whose peer has gone away.
var errGone = errors.New("mslhttp: the peer disconnected")

// Attended returns a handler for the messages of this connection whose context ends when
// the other end goes away: nobody reads from the connection while an application that has
// the whole request is silent. The end of a TCP stream does not prove this, since a peer
// may close its sending direction and wait for the answer.
func (c *StreamConn) Attended(handle msl.Handler) msl.Handler {
	return func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		attended, cancel := context.WithCancel(ctx)
		over := make(chan struct{})
		go func() {
			defer close(over)
			c.attend(attended, m)
		}()
		defer func() { // after this, the connection is read for the next message
			cancel()
			<-over
		}()
		return handle(attended, w, m)
	}
}

func (c *StreamConn) attend(ctx context.Context, m *msl.Message) {
	body, knows := m.Body.(interface{ Ended() bool })
	tick := time.NewTicker(attention)
	defer tick.Stop()
	for knows {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if body.Ended() {
			c.attendEnd(ctx)
			return
		}
	}
}

// attendEnd ends the connection if the other end goes away before ctx ends.
func (c *StreamConn) attendEnd(ctx context.Context) {
	c.mu.Lock()
	coming := c.await(c.quietly)
	c.mu.Unlock()
	select {
	case <-coming:
		if c.failed != nil && (c.pinged || c.failed != io.EOF) {
			c.End(errGone)
		}
	case <-ctx.Done():
		c.record().moves(1) // from now on it waits for the peer
		go func() {
			<-coming
			c.record().moves(-1)
		}()
	}
}

// quietly reads without a limit, and without recording activity: the application is
// working meanwhile.
func (c *StreamConn) quietly(p []byte) (int, error) {
	if w, ok := c.Conn.(*webSocket); ok {
		w.SetReadDeadline(time.Now().Add(w.idle)) // and pings extend it
		n, err := w.Conn.Read(p)
		return n, endOf(err)
	}
	c.SetReadDeadline(time.Time{})
	return c.Conn.Read(p)
}

// record is the connection's record among the counted connections.
func (c *StreamConn) record() *underWay {
	if w, ok := c.Conn.(*webSocket); ok {
		return w.exchange
	}
	return c.exchange
}
