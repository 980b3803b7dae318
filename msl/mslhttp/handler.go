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

	// MaxBody bounds a request, in bytes; zero means 64 MiB, negative no bound. A
	// longer one gets HTTP 413.
	MaxBody int64

	// Timeout is for one exchange, from its first byte to the last of the answer;
	// zero means one minute, negative no bound. A quarter of it, and at most three
	// seconds, is kept for telling the peer: before that the context of Handle ends,
	// with the cause [ErrTimeout], and the peer gets [msl.ErrInternalException],
	// which asks it to try again later.
	Timeout time.Duration

	// Idle lets an exchange go on for longer than Timeout: from when a part of an
	// answer is sent before its end, by [msl.ResponseWriter.Flush] or because it is
	// long, the exchange ends when nothing was read or written for that time. Where
	// Timeout is no bound, Idle is one from the beginning. Zero means no such bound,
	// and that Timeout is for streams, too.
	Idle time.Duration

	Log *slog.Logger // of failures to answer; nil means none

	// Source names where a request comes from, to bound what one source may
	// ask for. Nil means [SourceOf] the address of the peer.
	Source func(*http.Request) string

	// Report is told of each exchange that the application saw, when it is over. Nil
	// tells nobody. It must not block.
	Report func(context.Context, Exchange)
}

// An Exchange is a message that the application got, and what became of the answer.
type Exchange struct {
	Source    string
	Identity  string // of the sender
	User      string
	MessageID int64
	Took      time.Duration // until the network had taken the last byte of the answer
	// Err is nil if the whole answer was taken by the network. Else it is why the
	// application gave none, or why it could not be sent.
	Err error
}

const (
	defaultMaxBody = 64 << 20
	defaultTimeout = time.Minute
	retryAfter     = "1" // seconds
)

// ServeHTTP reads a message of the request body and answers it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.open(w, r)
	defer s.end()
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "MSL messages come by POST", http.StatusMethodNotAllowed)
		return
	}
	exchange, ok := beginExchange(r.Context(), h.source(r))
	if !ok {
		h.unavailable(w, r, errTooMany)
		return
	}
	defer exchange.end()
	s.exchange = exchange
	call := &call{handle: h.Handle, start: time.Now()}
	err := h.Server.Serve(s.ctx, h.source(r), s, s, call.run)
	if err == nil && (s.long == nil || call.answered) {
		err = s.finish()
	}
	h.tell(r, call, err)
	switch {
	case s.long != nil && !s.begun:
		h.tooLong(s, r)
	case err == nil:
		s.drain()
	case !s.begun:
		h.unavailable(w, r, err)
	default: // cut the answer off, so that the peer does not take it for whole
		h.log(r, "no complete answer", err)
		panic(http.ErrAbortHandler)
	}
}

// errTooMany says that a source has too many exchanges under way.
var errTooMany = errors.New("mslhttp: too many exchanges of one source at a time")

// A call is what the application was asked, and how it answered.
type call struct {
	handle   msl.Handler
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

// tell reports an exchange, with the first thing that went wrong with it.
func (h *Handler) tell(r *http.Request, c *call, sent error) {
	if h.Report == nil || c.message == nil {
		return
	}
	m, err := c.message, c.err
	if err == nil {
		err = sent
	}
	h.Report(r.Context(), Exchange{
		Source: h.source(r), Identity: m.Identity, User: m.User, MessageID: m.MessageID, Took: time.Since(c.start), Err: err,
	})
}

// tooLong says that a request is longer than it may be. What was held back of an
// answer is about the part that was read, and goes nowhere.
func (h *Handler) tooLong(s *stream, r *http.Request) {
	h.log(r, "message too long", s.long)
	s.w.Header().Set("Connection", "close")
	s.w.WriteHeader(http.StatusRequestEntityTooLarge)
	s.linger()
}

// unavailable says that there is no MSL answer, without a body.
func (h *Handler) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusServiceUnavailable
	var peer *msl.PeerError
	switch {
	case errors.As(err, &peer): // an error message is not to be answered
		status = http.StatusNoContent
	case errors.Is(err, msl.ErrTruncated):
		status = http.StatusBadRequest
	case errors.Is(err, msl.ErrAnswerLost): // to come again would have the message acted on again
		status = http.StatusInternalServerError
	default:
		w.Header().Set("Retry-After", retryAfter)
		w.Header().Set("Connection", "close")
	}
	h.log(r, "no complete answer", err)
	w.WriteHeader(status)
}

func (h *Handler) log(r *http.Request, what string, err error) {
	if h.Log != nil {
		h.Log.LogAttrs(r.Context(), slog.LevelWarn, what, slog.String("source", h.source(r)), slog.Any("error", err))
	}
}

func (h *Handler) source(r *http.Request) string { return source(h.Source, r) }

// source is where a request comes from, as told, or else by the address of the peer.
func source(told func(*http.Request) string, r *http.Request) string {
	if told != nil {
		return told(r)
	}
	return SourceOf(r.RemoteAddr)
}

func orDefault[T int | int64 | time.Duration](v, absent T) T {
	if v == 0 {
		return absent
	}
	return v
}
