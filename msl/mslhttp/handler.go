package mslhttp

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A Handler answers MSL messages over HTTP.
type Handler struct {
	Server *msl.Server
	Handle msl.Handler

	MaxBody int64         // bytes of a request; zero means 64 MiB, negative no bound
	Timeout time.Duration // for one exchange; zero means one minute, negative no bound
	Idle    time.Duration // for one read or write within it; zero means no other bound
	Log     *slog.Logger  // of failures to answer; nil means none

	// Source names where a request comes from, to bound what one source may
	// ask for. Nil means the network address of the peer.
	Source func(*http.Request) string
}

const (
	defaultMaxBody = 64 << 20
	defaultTimeout = time.Minute
	retryAfter     = "1" // seconds
)

// ServeHTTP reads a message of the request body and answers it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "MSL messages come by POST", http.StatusMethodNotAllowed)
		return
	}
	s := h.open(w, r)
	err := h.Server.Serve(r.Context(), h.source(r), s, s, h.Handle)
	switch {
	case err == nil:
		s.drain()
	case !s.begun:
		h.unavailable(w, r, err)
	default: // cut the answer off, so that the peer does not take it for whole
		h.log(r, err)
		panic(http.ErrAbortHandler)
	}
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
	h.log(r, err)
	w.WriteHeader(status)
}

func (h *Handler) log(r *http.Request, err error) {
	if h.Log != nil {
		h.Log.LogAttrs(r.Context(), slog.LevelWarn, "no complete answer", slog.String("source", h.source(r)), slog.Any("error", err))
	}
}

func (h *Handler) source(r *http.Request) string {
	if h.Source != nil {
		return h.Source(r)
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func orDefault[T int64 | time.Duration](v, absent T) T {
	if v == 0 {
		return absent
	}
	return v
}
