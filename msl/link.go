package msl

import (
	"context"
	"io"
	"sync/atomic"
)

// A link is a connection that is closed, if possible, when a message on it breaks off:
// nothing else interrupts a blocked read or write.
type link struct {
	rw    io.ReadWriter
	cause atomic.Pointer[error] // why the connection is no longer usable
	sent  atomic.Int64          // bytes
}

func (l *link) Read(p []byte) (int, error) {
	if err := l.broken(); err != nil {
		return 0, err
	}
	n, err := l.rw.Read(p)
	return n, l.explain(err)
}

func (l *link) Write(p []byte) (int, error) {
	if err := l.broken(); err != nil {
		return 0, err
	}
	n, err := l.rw.Write(p)
	l.sent.Add(int64(n))
	return n, l.explain(err)
}

// explain replaces a failure with its reason if this side broke the connection off.
func (l *link) explain(err error) error {
	if cause := l.broken(); err != nil && cause != nil {
		return cause
	}
	return err
}

// broken returns why the connection is no longer usable, or nil.
func (l *link) broken() error {
	if cause := l.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}

// breakOff ends the connection.
func (l *link) breakOff(cause error) {
	if !l.cause.CompareAndSwap(nil, &cause) {
		return
	}
	if c, ok := l.rw.(io.Closer); ok {
		c.Close()
	}
}

// bind breaks the connection off when ctx ends before unbind is called.
func (l *link) bind(ctx context.Context) (unbind func()) {
	stop := context.AfterFunc(ctx, func() { l.breakOff(context.Cause(ctx)) })
	return func() { stop() }
}

// Proven tells the connection that its peer has authenticated.
func (l *link) Proven() {
	if p, ok := l.rw.(interface{ Proven() }); ok {
		p.Proven()
	}
}

// Between tells the connection that it is between two messages.
func (l *link) Between() {
	if b, ok := l.rw.(interface{ Between() }); ok {
		b.Between()
	}
}

// Interrupt ends the connection for a message that must make room for others. A close
// may wait for the peer.
func (l *link) Interrupt() { go l.breakOff(errBusy) }
