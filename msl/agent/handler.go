package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/watchdog"
	"github.com/msl-hsm/msl-hsm/internal/weborigin"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A Handler sends the bodies of HTTP requests as messages, and answers with the data of
// the answers. It is safe for concurrent use. Its fields must not change after the
// first request.
type Handler struct {
	Client    *msl.Client
	Recipient string // identity of the server; empty means any that Client trusts

	// User is the user of requests without the header Msl-User; empty means no user.
	// Users lists the other users that a request may name. Any other name gets status
	// 403. The UserAuth of Client authenticates the users; a program cannot supply a
	// password.
	User  string
	Users []string

	// MaxBody limits the body of a request, in bytes; zero means 24 MiB, negative no
	// limit. A longer body gets status 413. On the wire a message is 2.4 times as long if
	// its data does not compress. Up to 1 MiB of a body is kept in case the message has
	// to be sent again, as is the part not yet read when the answer begins.
	MaxBody int64

	// Requests is how many requests are sent concurrently; others wait. Zero means 128.
	Requests int

	// MaxAhead limits how many bytes of a body are read ahead into memory if the answer
	// begins before the program has sent all of it; zero means MaxBody, or 24 MiB if that
	// is no limit. A program that sends more than that before it reads its answer is cut
	// off when its time is up.
	MaxAhead int64

	// Timeout limits a request, from its header to the last byte of the response; zero
	// means one minute, negative no limit.
	Timeout time.Duration

	// Idle lets a request take longer than Timeout, as long as nothing pauses for longer
	// than Idle: a read of its body, or a write of its response. Zero means no such
	// exception.
	Idle time.Duration

	// HTTP sends whole HTTP requests, with method, path, query and header, in the form of
	// package httpform, and returns responses unchanged. The server must support that
	// form, as an mslhttp.HTTPGateway does.
	HTTP bool

	// Explain returns the error shown to the program: the given error, wrapped with
	// advice. If the result is or wraps a [*StatusError] other than that of the given
	// error, the response has its status. Nil means the text of the error is used.
	Explain func(error) error

	// Report is called for each request when its message was answered or has failed,
	// before the program learns of a failure. Requests from web pages and for other hosts
	// are not reported. Nil means no reports. It must not block.
	Report func(context.Context, Exchange)

	once   sync.Once
	places chan struct{} // holds an element for each request under way
}

// An Exchange is the outcome of a request.
type Exchange struct {
	Took  time.Duration
	Err   error // why there is no complete answer, or nil
	Begun bool  // part of the response was sent

	// Status is the HTTP status for Err. If Begun, the connection is cut off instead.
	// It is zero if Err is nil, or if the program closed its connection.
	Status int
}

const (
	defaultMaxBody  = 24 << 20
	defaultRequests = 128
	defaultTimeout  = time.Minute

	grace  = 5 * time.Second        // to inform a program that its time is up
	linger = 500 * time.Millisecond // for the program to receive that
)

// ServeHTTP sends the body of a request as a message, and answers with the data of the
// answer; or it ends a session. See the package documentation for the paths and statuses.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := weborigin.Check(r, h.HTTP); err != nil { // a whole request may act on a service, even a GET
		answerUnread(w, r)
		(&refusal{status: http.StatusForbidden, Error: err.Error()}).write(w)
		return
	}
	if ends(r) {
		answerUnread(w, r)
		h.endSession(w, r)
		return
	}
	start, control := time.Now(), http.NewResponseController(w)
	_ = control.EnableFullDuplex() // connections without full duplex do not need it
	ctx, clock := newClock(r.Context(), control, h.timeout(), h.Idle)
	defer clock.stop()
	body := h.body(w, r, clock)
	defer body.stop()
	begun, err := h.send(&response{w, body, clock, !r.ProtoAtLeast(1, 1)}, r, ctx)
	refused := h.report(r, Exchange{Took: time.Since(start), Err: err, Begun: begun})
	switch {
	case err == nil:
		body.end(r.Body)
		return
	case refused == nil, begun: // cut the connection, so that the answer does not look complete
		panic(http.ErrAbortHandler)
	}
	body.endsWith(w.Header())
	refused.write(w)
	_ = control.Flush()
	_ = control.SetReadDeadline(time.Now().Add(linger))
	body.end(r.Body)
}

// report reports an exchange, and returns the response to the program, or nil if there
// was no failure or the program is gone.
func (h *Handler) report(r *http.Request, e Exchange) (refused *refusal) {
	if e.Err != nil && r.Context().Err() == nil {
		refused = h.refusal(e.Err)
		e.Status = refused.status
	}
	if h.Report != nil {
		h.Report(r.Context(), e)
	}
	return refused
}

func (h *Handler) timeout() time.Duration { return cmp.Or(h.Timeout, defaultTimeout) }

func (h *Handler) maxBody() int64 { return cmp.Or(h.MaxBody, defaultMaxBody) }

func (h *Handler) body(w http.ResponseWriter, r *http.Request, c *clock) *body {
	ahead := h.MaxAhead
	if ahead <= 0 {
		ahead = max(h.maxBody(), 0)
	}
	b := newBody(r.Body, r.Body == http.NoBody, cmp.Or(ahead, defaultMaxBody), c)
	if most := h.maxBody(); most > 0 {
		b.r = http.MaxBytesReader(w, r.Body, most)
	}
	return b
}

// send handles one request. begun reports whether part of the answer was sent.
func (h *Handler) send(w *response, r *http.Request, ctx context.Context) (begun bool, err error) {
	m, err := h.message(r)
	if err != nil {
		if s, ok := err.(*StatusError); ok && s.Status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		return false, err
	}
	if m.request.Body = w.body.open; h.HTTP {
		if err := m.asHTTP(r, w.body); err != nil {
			return false, err
		}
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	begun, err = h.exchange(ctx, w, m)
	late := context.Cause(ctx)
	switch failed := w.body.failure(); {
	case err == nil:
		return begun, nil
	case failed != nil:
		err = failed // the program caused this, not the server
	case !errors.Is(late, context.DeadlineExceeded):
	case w.body.waits() && !begun:
		err = &StatusError{Status: http.StatusRequestTimeout, Err: errors.New("the body did not come in time")}
	case w.body.full():
		err = fmt.Errorf("%w: %w", &AheadError{w.body.most}, late)
	case errors.Is(err, context.Canceled):
		err = fmt.Errorf("%w: %w", late, err)
	}
	return begun, err
}

// enter waits for a free place among the requests under way.
func (h *Handler) enter(ctx context.Context) (leave func(), err error) {
	h.once.Do(func() { h.places = make(chan struct{}, max(cmp.Or(h.Requests, defaultRequests), 1)) })
	select {
	case h.places <- struct{}{}:
		return func() { <-h.places }, nil
	case <-ctx.Done():
		err := fmt.Errorf("%d other requests are under way: %w", cap(h.places), context.Cause(ctx))
		return nil, &StatusError{http.StatusServiceUnavailable, soon, err}
	}
}

// exchange sends the message, and relays the answer to the program.
func (h *Handler) exchange(ctx context.Context, w *response, m message) (begun bool, err error) {
	if m.noAnswer {
		if err := watchdog.Run(ctx, func() error { return h.Client.Send(ctx, &m.request) }); err != nil {
			return false, err
		}
		w.body.endsWith(w.Header())
		w.WriteHeader(http.StatusAccepted)
		return true, nil
	}
	answer, err := watchdog.Do(ctx, ctx, h.Client, &m.request)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	if m.method == "" {
		return w.relay(answer)
	}
	if begun, err = w.relayHTTP(answer, m.method); !begun {
		clear(w.Header()) // they belong to a response that will not come
	}
	return begun, notHTTP(err)
}
