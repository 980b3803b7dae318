package mslhttp

import (
	"io"
	"net/http"
	"time"
)

// A stream is the two directions of one exchange, as the server sees them.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	body    io.Reader
	begun   bool // a byte of the answer was written
	ended   bool // the request was read to its end
	idle    time.Duration
	limit   time.Time // of the whole exchange, or zero
}

// open makes both directions go on together: a handler may answer while the
// request is still being sent.
func (h *Handler) open(w http.ResponseWriter, r *http.Request) *stream {
	s := &stream{w: w, control: http.NewResponseController(w), body: r.Body, idle: h.Idle}
	_ = s.control.EnableFullDuplex()
	if d := orDefault(h.Timeout, defaultTimeout); d > 0 {
		s.limit = time.Now().Add(d)
		_ = s.control.SetReadDeadline(s.limit) // not every ResponseWriter has deadlines
		_ = s.control.SetWriteDeadline(s.limit)
	}
	if size := orDefault(h.MaxBody, defaultMaxBody); size > 0 {
		s.body = http.MaxBytesReader(w, r.Body, size)
	}
	return s
}

// deadline is when the next read or write must be done.
func (s *stream) deadline() time.Time {
	d := time.Now().Add(s.idle)
	if !s.limit.IsZero() && s.limit.Before(d) {
		return s.limit
	}
	return d
}

func (s *stream) Read(p []byte) (int, error) {
	if s.idle > 0 {
		_ = s.control.SetReadDeadline(s.deadline())
	}
	n, err := s.body.Read(p)
	s.ended = s.ended || err == io.EOF
	return n, err
}

func (s *stream) Write(p []byte) (int, error) {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/octet-stream")
		s.w.Header().Set("Cache-Control", "no-store")
	}
	if s.idle > 0 {
		_ = s.control.SetWriteDeadline(s.deadline())
	}
	return s.w.Write(p)
}

// Flush sends what the server holds back.
func (s *stream) Flush() error { return s.control.Flush() }

// drain reads what is left of the request, within its bounds. Closing the
// connection while the client still sends would take the answer from it; one that
// has the answer and wants no more closes the connection itself.
func (s *stream) drain() {
	if s.ended || s.Flush() != nil {
		return
	}
	_, _ = io.Copy(io.Discard, s) // what is wrong with it matters to nobody
}
