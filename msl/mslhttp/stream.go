package mslhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	holdSize   = 16 << 10               // bytes of an answer that is sent with its length
	lastWait   = 500 * time.Millisecond // for a request of which nobody wants to see more
	lingerWait = 2 * time.Second        // for a peer that still sends to see its answer
)

// A stream is the two directions of one exchange, as the server sees them.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	raw     io.Reader // body without its bound
	body    io.Reader
	ctx     context.Context
	clock   *clock
	// exchange is what the bounds of connections know of it, or nil.
	exchange *underWay
	writing  atomic.Int32 // writes under way

	held   []byte      // start of the answer
	begun  bool        // a byte of the answer was sent
	ended  atomic.Bool // the request was read to its end
	long   error       // the request is longer than it may be
	duplex bool        // the client reads while it sends
}

// HalfDuplex reports whether the client may not read before it has sent its whole
// request, as most of HTTP/1.1 do: its answer waits until then.
func (s *stream) HalfDuplex() bool { return !s.duplex }

// open makes both directions go on together: an error may be answered while the
// request is still being sent, and a client that reads meanwhile gets all of an
// answer so.
func (h *Handler) open(w http.ResponseWriter, r *http.Request) *stream {
	s := &stream{w: w, control: http.NewResponseController(w), raw: r.Body, body: r.Body, duplex: FullDuplex(r)}
	s.ended.Store(r.Body == http.NoBody)
	_ = s.control.EnableFullDuplex()
	s.ctx, s.clock = newClock(r.Context(), s.control, orDefault(h.Timeout, defaultTimeout), h.Idle)
	if size := orDefault(h.MaxBody, defaultMaxBody); size > 0 {
		s.body = http.MaxBytesReader(w, r.Body, size)
	}
	return s
}

// Read reads the request.
func (s *stream) Read(p []byte) (int, error) {
	defer s.exchange.moves()()
	n, err := s.body.Read(p)
	if err == io.EOF {
		s.ended.Store(true)
	}
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		s.long = long
	case err != nil && err != io.EOF && context.Cause(s.ctx) == ErrTimeout:
		err = ErrTimeout
	}
	s.clock.moved()
	return n, err
}

// Write holds back a short answer, so that it can be sent with its length.
func (s *stream) Write(p []byte) (int, error) {
	if !s.begun && len(s.held)+len(p) <= holdSize {
		s.held = append(s.held, p...)
		return len(p), nil
	}
	s.clock.roll()
	defer s.writes()()
	if err := s.release(); err != nil {
		return 0, err
	}
	n, err := s.w.Write(p)
	s.clock.moved()
	return n, err
}

// writes says that a write begins, and, by what it returns, that it has ended.
func (s *stream) writes() (ended func()) {
	moved := s.exchange.moves()
	s.writing.Add(1)
	return func() {
		s.writing.Add(-1)
		moved()
	}
}

// Proven tells the bounds of connections that the sender proved who he is.
func (s *stream) Proven() { s.exchange.prove() }

// Interrupt ends the read or write that is under way, for a message that must make room
// for others. A request that was read to its end is left alone: net/http reads on by then,
// and takes a deadline for the end of the peer.
func (s *stream) Interrupt() {
	if !s.ended.Load() {
		_ = s.control.SetReadDeadline(time.Unix(1, 0))
	}
	if s.writing.Load() > 0 {
		_ = s.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

// release sends what is held back.
func (s *stream) release() error {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/octet-stream")
		s.w.Header().Set("Cache-Control", "no-store")
	}
	held := s.held
	s.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := s.w.Write(held)
	return err
}

// Flush sends what the server holds back.
func (s *stream) Flush() error {
	s.clock.roll()
	defer s.writes()()
	if err := s.release(); err != nil {
		return err
	}
	err := s.control.Flush()
	s.clock.moved()
	return err
}

// finish sends the rest of the answer. Without an error the network has taken it.
func (s *stream) finish() error {
	if !s.begun && len(s.held) == 0 {
		return nil
	}
	if !s.begun {
		s.w.Header().Set("Content-Length", strconv.Itoa(len(s.held)))
	}
	defer s.writes()()
	if err := s.release(); err != nil {
		return err
	}
	if err := s.control.Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// drain reads what is left of the request, within its bounds. Closing the
// connection while the client still sends would take the answer from it; one that
// has the answer and wants no more closes the connection itself.
func (s *stream) drain() {
	if !s.ended.Load() {
		_, _ = io.Copy(io.Discard, s) // what is wrong with it matters to nobody
	}
}

// linger is drain for a request that goes on beyond its bound.
func (s *stream) linger() {
	if s.control.Flush() == nil {
		_ = s.control.SetReadDeadline(time.Now().Add(lingerWait))
		_, _ = io.Copy(io.Discard, s.raw)
	}
}

// end is the last thing that is done, whatever came before. A connection on which
// there may be more of a request ends with it: the next bytes are not the next
// request (RFC 9112, sections 9.3 and 9.6).
func (s *stream) end() {
	if over := s.clock.stop(); s.ended.Load() && !over {
		return
	}
	endConnection(s.w)
	_ = s.control.SetReadDeadline(time.Now().Add(lastWait)) // net/http reads a little of what is left
}

// endConnection has net/http close the connection after its answer, also where the
// start of that is on its way: it does so when a bound of [http.MaxBytesReader] is
// exceeded. The writer must be that of net/http itself.
func endConnection(w http.ResponseWriter) {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = outer.Unwrap()
	}
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
}
