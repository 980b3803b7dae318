package mslhttp

import (
	"cmp"
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
	holdSize   = 16 << 10               // an answer up to this many bytes is sent with its length
	lastWait   = 500 * time.Millisecond // for the rest of an unwanted request
	lingerWait = 2 * time.Second        // for a peer that is still sending, so that it sees its answer
)

// A stream is both directions of one exchange, on the server.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	raw     io.Reader // body without its limit
	body    io.Reader
	ctx     context.Context
	clock   *clock
	call    *call
	// exchange is its record among the counted connections, or nil.
	exchange *underWay
	writing  atomic.Int32 // writes under way

	held   []byte      // start of the answer
	begun  bool        // a byte of the answer was sent
	ended  atomic.Bool // the request was read to its end
	left   int64       // unread bytes of the request, if it gave its length
	long   error       // the request is longer than allowed
	duplex bool        // the client reads while it sends
	shared bool        // its connection may carry other exchanges at the same time: HTTP/2
}

// HalfDuplex reports whether the client may send its whole request before it reads, as
// most HTTP/1.1 clients do: its answer waits until then.
func (s *stream) HalfDuplex() bool { return !s.duplex }

// open lets both directions run concurrently: an error may be answered while the request
// is still being sent, and a client that reads meanwhile can get a whole answer that way.
func (h *Handler) open(w http.ResponseWriter, r *http.Request) *stream {
	s := &stream{w: w, control: http.NewResponseController(w), raw: r.Body, body: r.Body, duplex: FullDuplex(r), shared: r.ProtoMajor >= 2}
	s.ended.Store(r.Body == http.NoBody)
	s.left = r.ContentLength
	_ = s.control.EnableFullDuplex()
	s.ctx, s.clock = newClock(r.Context(), s.control, cmp.Or(h.Timeout, defaultTimeout), h.Idle)
	if size := cmp.Or(h.MaxBody, defaultMaxBody); size > 0 {
		s.body = http.MaxBytesReader(w, r.Body, size)
	}
	return s
}

// Read reads the request.
func (s *stream) Read(p []byte) (int, error) {
	s.exchange.moves(1)
	defer s.exchange.moves(-1)
	n, err := s.body.Read(p)
	s.left -= int64(n)
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

// Len returns how much of the request is still to come; less than 1 if it did not give
// its length.
func (s *stream) Len() int { return int(s.left) }

// Write holds back a short answer, so that it can be sent with its length.
func (s *stream) Write(p []byte) (int, error) {
	if !s.begun && len(s.held)+len(p) <= holdSize {
		if s.held == nil {
			s.held = newHold()
		}
		s.held = append(s.held, p...)
		return len(p), nil
	}
	s.clock.roll()
	s.writes(1)
	defer s.writes(-1)
	if err := s.release(); err != nil {
		return 0, err
	}
	n, err := s.w.Write(p)
	s.clock.moved()
	return n, err
}

// writes adds n to the writes under way; n may be negative.
func (s *stream) writes(n int) {
	s.exchange.moves(n)
	s.writing.Add(int32(n))
}

// Proven informs the connection limits and the clock that the sender proved its identity.
func (s *stream) Proven() {
	s.exchange.prove()
	s.clock.prove()
}

// Interrupt ends the read or write under way, for a message that must make room for
// others. Reads of a request that was read to its end are not interrupted: by then
// net/http itself is reading, and would interpret a deadline as the peer being gone.
func (s *stream) Interrupt() {
	if !s.ended.Load() {
		_ = s.control.SetReadDeadline(time.Unix(1, 0))
	}
	if s.writing.Load() > 0 {
		_ = s.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

// release sends the held-back part of the answer.
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
	if err == nil { // else HTTP/2 may still read it
		freeHold(held)
	}
	return err
}

// Flush sends everything held back.
func (s *stream) Flush() error {
	s.clock.roll()
	s.writes(1)
	defer s.writes(-1)
	if err := s.release(); err != nil {
		return err
	}
	err := s.control.Flush()
	s.clock.moved()
	return err
}

// Finish sends the rest of the answer. Without an error the network has taken it. A
// request that is too long has no answer, unless the application had already answered.
func (s *stream) Finish() error {
	if s.long != nil && !s.call.answered {
		return nil
	}
	if !s.begun && len(s.held) == 0 {
		return nil
	}
	if !s.begun {
		s.w.Header().Set("Content-Length", strconv.Itoa(len(s.held)))
	}
	s.writes(1)
	defer s.writes(-1)
	if s.exchange == nil || s.shared {
		return s.sendRest()
	}
	return s.exchange.conn.atOnce(s.sendRest)
}

// sendRest sends what is held back here and in net/http.
func (s *stream) sendRest() error {
	if err := s.release(); err != nil {
		return err
	}
	if err := s.control.Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// drain reads the rest of the request, within limits. If the connection were closed while
// the client is still sending, the client could lose the answer. A client that has the
// answer and wants no more closes the connection itself. HTTP/2 needs none of this: its
// answer ends the stream, and a client may stop sending until then (RFC 9113, section 8.1).
func (s *stream) drain() {
	if !s.shared && !s.ended.Load() {
		_, _ = io.Copy(io.Discard, s) // errors no longer matter
	}
}

// linger is drain for a request that exceeds its limit.
func (s *stream) linger() {
	if !s.shared && s.control.Flush() == nil {
		_ = s.control.SetReadDeadline(time.Now().Add(lingerWait))
		_, _ = io.Copy(io.Discard, s.raw)
	}
}

// end finishes every exchange. It closes the connection if more of the request may be on
// it, since the next bytes are then not the next request (RFC 9112, sections 9.3 and
// 9.6).
func (s *stream) end() {
	if over := s.clock.stop(); s.ended.Load() && !over {
		return
	}
	endConnection(s.w)
	_ = s.control.SetReadDeadline(time.Now().Add(lastWait)) // net/http reads a little of the rest
}

// endConnection makes net/http close the connection after its answer, even if part of the
// answer has been sent: net/http does so when a limit of [http.MaxBytesReader] is
// exceeded. That works only with net/http's own writer.
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
