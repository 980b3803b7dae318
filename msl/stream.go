package msl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A StreamTransport carries the messages of a [Client] over one connection to its server,
// which reads them with [Server.ServeStream]: a pipe, a serial line, a WebSocket,
// anything that reads and writes. It is safe for concurrent use, but handles one exchange
// at a time: the next waits until the answer is closed.
//
// After a message breaks off, or an exchange's context ends, the connection is unusable.
// It is closed if RW is an [io.Closer]; otherwise nothing can interrupt a blocked read or
// write. The server must not answer a message of [Client.Send]: the next message would
// read that answer as its own, and fail.
type StreamTransport struct {
	RW     io.ReadWriter
	Limits Limits // like the client's: limits of a message from the server

	once sync.Once
	link *link
	in   messages
	turn chan struct{} // holds an element while an exchange is under way
}

// RoundTrip sends what write writes, then returns the answer. Closing the answer waits
// until the request is written, and skips the unread rest of the answer.
func (t *StreamTransport) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	a := &streamAnswer{StreamTransport: t, unbind: t.link.bind(ctx), written: make(chan error, 1)}
	go func() {
		err := write(t.link)
		if err != nil {
			t.link.breakOff(err)
		}
		a.written <- err
	}()
	return a, nil
}

// begin waits for the turn on the connection.
func (t *StreamTransport) begin(ctx context.Context) error {
	t.once.Do(func() {
		t.link = &link{rw: t.RW}
		t.in.decoder = wire.NewDecoder(t.link, t.Limits.forClient().wire())
		t.turn = make(chan struct{}, 1)
	})
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("msl: wait for another message on the connection: %w", context.Cause(ctx))
	}
	if err := t.link.broken(); err != nil {
		<-t.turn
		return brokeOff(err)
	}
	return nil
}

func brokeOff(err error) error {
	return fmt.Errorf("msl: an earlier message on the connection broke off, connect anew: %w", err)
}

// Unasked returns what the server sends unasked, for [Client.NewInbox]. No exchange can
// start until it is closed, or the end of ctx closes the connection.
func (t *StreamTransport) Unasked(ctx context.Context) (io.ReadCloser, error) {
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	return &unasked{StreamTransport: t, unbind: t.link.bind(ctx)}, nil
}

// An unasked stream is read object by object.
type unasked struct {
	*StreamTransport
	unbind func()
}

func (u *unasked) Read(p []byte) (int, error) {
	n, err := u.in.Read(p)
	return n, u.link.explain(err)
}

// Close allows the next exchange.
func (u *unasked) Close() error {
	u.unbind()
	<-u.turn
	return nil
}

// A streamAnswer is the answer to one message.
type streamAnswer struct {
	*StreamTransport
	unbind  func()
	written chan error
	begun   bool
}

// Read first skips the unread rest of the previous answer.
func (a *streamAnswer) Read(p []byte) (n int, err error) {
	if !a.begun {
		a.begun = true
		err = a.in.next()
	}
	if err == nil {
		n, err = a.in.Read(p)
	}
	if err != nil {
		a.link.breakOff(err)
	}
	return n, a.link.explain(err)
}

// Close ends the exchange.
func (a *streamAnswer) Close() error {
	err := <-a.written
	a.unbind()
	<-a.turn
	return err
}

// ServeStream answers the messages that arrive on rw in order, until the other side ends
// the connection between two of them, which is not an error. It is [Server.Serve] for a
// persistent connection; see there for source. If rw is an [io.Closer], the end of ctx
// closes it; otherwise nothing can interrupt a blocked read or write. The caller limits
// the connection's time with deadlines. If rw has a method Between, it is called when
// everything read so far is answered, before the wait for the next message.
func (s *Server) ServeStream(ctx context.Context, source string, rw io.ReadWriter, handle Handler) error {
	s.init()
	l := &link{rw: rw}
	defer l.bind(ctx)()
	a := s.memory.open(source, l)
	defer a.close()
	in := messages{decoder: a.decoder(ctx, l, s.Limits, aRelay)}
	for {
		if err := in.shrink(); err != nil {
			return err
		}
		if in.decoder.Buffered() == 0 {
			l.Between()
		}
		next := in.next()
		if gone := unheard(in.decoder, next); gone != nil || next == io.EOF {
			return gone
		}
		began := time.Now()
		err := serveNext(ctx, s, source, a, &in, l, handle)
		if a.refused {
			s.admission.linger(time.Since(began))
		}
		if err != nil {
			return err
		}
		switch err := in.failed(); {
		case err == io.EOF:
			return ErrTruncated
		case err != nil: // answered, but the start of the next message is unknown
			return err
		}
		if err := a.rest(ctx, source); err != nil {
			return err
		}
	}
}

// serveNext is Server.serve for a message that another one may follow: when it returns,
// nothing reads the stream anymore.
func serveNext(ctx context.Context, s *Server, source string, a *account, m *messages, w io.Writer, handle Handler) error {
	ctx, span := beginSpan(ctx, s.Tracer)
	a.movement.first()
	in, err := s.receive(ctx, a, a.decoder(ctx, m, s.Limits, anObject))
	in.followed = func() bool {
		ended := in.body.Ended()
		in.body.shut() // what comes now does not belong to this message
		return ended && m.decoder.Buffered() > 0
	}
	defer func() { in.close() }()
	defer func() { in.body.shut() }()
	in.end.source, in.end.span, a.refused = source, span, err != nil && !in.sender.Authenticated
	err = respond(ctx, s, source, a, in, err, w, handle)
	in.tell(ctx, s, a, err)
	return err
}

// unheard returns why nobody waits for an answer after err while reading the start of a
// message, or nil if somebody may. Nobody does if the connection failed before the first
// byte, in a later message, or in the rest of an answered one. A signature costs too much
// for that.
func unheard(d *wire.Decoder, err error) error {
	switch {
	case err == nil, err == io.EOF, isAny(err, errBusy, errEnded, wire.ErrLimit, wire.ErrSyntax):
		return nil
	case cutOff(err) && wire.Later(d):
		return ErrTruncated
	case d.Buffered() == 0, wire.Later(d) && !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	}
	return nil
}

// messages splits a stream into one reader per message. It takes no byte of the next
// message, however much a reader asks for.
type messages struct {
	decoder *wire.Decoder

	mu   sync.Mutex // a handler may have left a reader behind
	rest []byte     // of the current object
	err  error
}

// next moves to the next message, skipping the rest of the previous one. It returns
// io.EOF if there is none.
func (m *messages) next() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	return m.take(firstAfter(m.decoder))
}

// firstAfter returns the header that follows the rest of a message. A header may have
// members that the protocol does not define.
func firstAfter(d *wire.Decoder) (wire.Object, error) {
	return d.FirstAfter("payload", "headerdata", "errordata")
}

// failed returns the error that ended the reading, or nil.
func (m *messages) failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// shrink frees the memory between two messages.
func (m *messages) shrink() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rest = nil
	return m.decoder.Shrink()
}

func (m *messages) take(o wire.Object, err error) error {
	m.rest, m.err = nil, err
	if err == nil {
		m.rest = o.Raw()
	}
	return err
}

// Read reads the current message, at most one object at a time.
func (m *messages) Read(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.rest) == 0 && m.err == nil {
		m.take(m.decoder.Next())
	}
	if m.err != nil {
		return 0, m.err
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

// peek returns a copy of the next object of the message, if it has arrived. After a
// message's first object, only chunks follow.
func (m *messages) peek(most int) (o wire.Object, arrived bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.rest) > 0 || m.err != nil {
		return wire.Object{}, false
	}
	return m.decoder.Peek(most)
}
