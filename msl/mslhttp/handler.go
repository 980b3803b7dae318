package mslhttp

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A Handler answers MSL messages over HTTP.
type Handler struct {
	Server *msl.Server
	Handle msl.Handler

	// MaxBody bounds a request, in bytes; zero means 64 MiB, negative no limit. A longer
	// one gets HTTP 413.
	MaxBody int64

	// Timeout limits one exchange, from its first byte to the last of the answer; zero
	// means one minute, negative no limit. A quarter of it, but at most three seconds, is
	// reserved for informing the peer: when the rest is used up, the context of Handle
	// ends with the cause [ErrTimeout], and the peer gets [msl.ErrInternalException],
	// which asks it to try again later.
	Timeout time.Duration

	// Idle lets an exchange take longer than Timeout. Once part of an answer is sent
	// before its end, by [msl.ResponseWriter.Flush] or because it is long, the exchange
	// ends only if nothing is read or written for Idle. If Timeout is negative, Idle
	// applies from the beginning. A request whose sender is authenticated may also take
	// longer than Timeout, as long as data keeps coming. Zero means no such limit: then
	// Timeout applies to streams, too.
	Idle time.Duration

	Log *slog.Logger // of failures to answer; nil means none

	// Source returns where a request comes from, for the limits on each source. Nil means
	// [SourceOf] of the peer's address.
	Source func(*http.Request) string

	// Report, if not nil, is called at the end of each exchange passed to the
	// application. It must not block.
	Report func(context.Context, Exchange)
}

// An Exchange is a message passed to the application, and what became of the answer.
type Exchange struct {
	Source    string
	Identity  string // of the sender
	User      string
	MessageID int64
	Took      time.Duration // until the network had taken the last byte of the answer
	// Err is nil if the network took the whole answer. Otherwise it is why the
	// application gave none, or why it could not be sent.
	Err error
}

const (
	defaultMaxBody = 64 << 20
	defaultTimeout = time.Minute
	retryAfter     = "1" // seconds
)

// ServeHTTP reads a message from the request body and answers it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.open(w, r)
	defer s.end()
	if r.Method != http.MethodPost {
		TurnAway(r.Context(), BadMethod, h.source(r))
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "send MSL messages by POST", http.StatusMethodNotAllowed)
		return
	}
	call := &call{handle: h.Handle, source: h.source(r), start: time.Now()}
	exchange, ok := beginExchange(r.Context(), call.source)
	if !ok {
		askAgain(w, r)
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer exchange.end()
	s.exchange = exchange
	s.call = call
	err := h.Server.Serve(withRequest(s.ctx, r), call.source, s, s, call.run)
	h.tell(r, call, err)
	switch {
	case s.long != nil && !s.begun:
		h.tooLong(s, r)
	case err == nil:
		s.drain()
	case !s.begun:
		h.unavailable(w, r, err)
	default: // break off the answer, so that the peer sees that it is incomplete
		h.log(r, "no complete answer", err)
		panic(http.ErrAbortHandler)
	}
}

// A call is a message passed to the application, and how the application answered.
type call struct {
	handle   msl.Handler
	source   string
	start    time.Time
	message  *msl.Message
	answered bool
	err      error
}

func (c *call) run(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	c.message = m
	c.err = c.handle(ctx, w, m)
	c.answered = c.err == nil
	return c.err
}

// tell reports an exchange, with the first error in it.
func (h *Handler) tell(r *http.Request, c *call, sent error) {
	if h.Report == nil || c.message == nil {
		return
	}
	m, err := c.message, c.err
	if err == nil {
		err = sent
	}
	h.Report(r.Context(), Exchange{
		Source: c.source, Identity: m.Identity, User: m.User, MessageID: m.MessageID, Took: time.Since(c.start), Err: err,
	})
}

// tooLong informs the peer that its request is too long. Any held-back part of an answer
// is dropped, since it answers only the part that was read.
func (h *Handler) tooLong(s *stream, r *http.Request) {
	h.unreported(r)
	h.log(r, "message too long", s.long)
	if r.ProtoMajor < 2 {
		s.w.Header().Set("Connection", "close")
	}
	s.w.WriteHeader(http.StatusRequestEntityTooLarge)
	s.linger()
}

// unavailable sends a status without a body if there is no MSL answer.
func (h *Handler) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusServiceUnavailable
	var peer *msl.PeerError
	switch {
	case errors.Is(err, msl.ErrAnswerLost): // a retry would make the application act again
		status = http.StatusInternalServerError
	case errors.As(err, &peer): // error messages are not answered
		status = http.StatusNoContent
	case errors.Is(err, msl.ErrTruncated):
		status = http.StatusBadRequest
	default:
		askAgain(w, r)
		h.unreported(r)
	}
	h.log(r, "no complete answer", err, slog.String("class", Classify(err).Name))
	w.WriteHeader(status)
}

// askAgain sets the headers of an answer that asks to send the request again later.
func askAgain(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", retryAfter)
	if r.ProtoMajor < 2 { // in HTTP/2 this would end the connection for other streams
		w.Header().Set("Connection", "close")
	}
}

// unreported counts a message without an answer if nothing else does.
func (h *Handler) unreported(r *http.Request) {
	if h.Server == nil || h.Server.Report == nil {
		TurnAway(r.Context(), NoAnswer, h.source(r))
	}
}

func (h *Handler) log(r *http.Request, what string, err error, more ...slog.Attr) {
	if h.Log != nil {
		h.Log.LogAttrs(r.Context(), slog.LevelWarn, what, append(more, slog.String("source", h.source(r)), slog.Any("error", err))...)
	}
}

func (h *Handler) source(r *http.Request) string { return source(h.Source, r) }

// source returns where a request comes from: the result of told if that is not nil, else
// the peer's address.
func source(told func(*http.Request) string, r *http.Request) string {
	if told != nil {
		return told(r)
	}
	return SourceOf(r.RemoteAddr)
}
