package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/watchdog"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A Handler sends the bodies of HTTP requests as messages, and answers with the data of
// the answers. It is safe for many goroutines. Its fields must not change after the
// first request.
type Handler struct {
	Client    *msl.Client
	Recipient string // identity of the server, or empty for any that Client trusts

	// User is whom a request without the header Msl-User is for; empty means nobody.
	// Users are those that a request may name besides. Any other name gets status 403.
	// The UserAuth of Client proves them; a program cannot give a password.
	User  string
	Users []string

	// MaxBody bounds the body of a request, in bytes; zero means 24 MiB, negative no
	// bound. A longer one gets status 413. On the wire a message is 2.4 times as long
	// where its data does not compress. Up to 1 MiB of a body is kept, in case the
	// message has to be sent again, and what is left of it when the answer begins.
	MaxBody int64

	// Requests is how many are sent at a time; others wait. Zero means 128.
	Requests int

	// Timeout is for a request, from its header to the last byte of the response;
	// zero means one minute, negative no bound.
	Timeout time.Duration

	// Explain returns what the program is told of an error: the same one, wrapped with
	// what to do about it. If the result is or wraps a [*StatusError] other than that of
	// the error, the response has its status. Nil means the text of the error.
	Explain func(error) error

	// Report is told of each request when its message was answered or has failed, and
	// before the program is told of a failure. Requests of web pages and for other hosts
	// are not reported. Nil tells nobody. It must not block.
	Report func(context.Context, Exchange)

	once   sync.Once
	places chan struct{} // holds a place for each request under way
}

// An Exchange is what became of a request.
type Exchange struct {
	Took  time.Duration
	Err   error // why there is no complete answer, or nil
	Begun bool  // a part of the response was sent

	// Status is the HTTP status for Err; if Begun, the connection breaks off instead.
	// It is zero if Err is nil, or if the program closed its connection.
	Status int
}

const (
	defaultMaxBody  = 24 << 20
	defaultRequests = 128
	defaultTimeout  = time.Minute

	grace  = 5 * time.Second        // to tell a program that its time is over
	linger = 500 * time.Millisecond // for it to hear that
)

// ServeHTTP sends the body of a request as a message, and answers with the data of the
// answer. See the package documentation for the statuses.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if refused := checkOrigin(r); refused != nil {
		refused.write(w)
		return
	}
	start, control := time.Now(), http.NewResponseController(w)
	_ = control.EnableFullDuplex() // what has no such modes needs none
	if d := h.timeout(); d > 0 {
		_ = control.SetReadDeadline(start.Add(d + grace))
		_ = control.SetWriteDeadline(start.Add(d + grace))
	}
	body := h.body(w, r)
	begun, err := h.send(&response{w, body}, r)
	refused := h.report(r, Exchange{Took: time.Since(start), Err: err, Begun: begun})
	switch {
	case err == nil:
		body.end(r.Body)
		return
	case refused == nil, begun: // cut it off, so that nobody takes it for whole
		panic(http.ErrAbortHandler)
	}
	body.endsWith(w.Header())
	refused.write(w)
	_ = control.Flush()
	_ = control.SetReadDeadline(time.Now().Add(linger))
	body.end(r.Body)
}

// report tells of an exchange, and returns what the program is told: nil where there is
// no failure, or no program any more.
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

func (h *Handler) timeout() time.Duration { return orDefault(h.Timeout, defaultTimeout) }

func (h *Handler) body(w http.ResponseWriter, r *http.Request) *body {
	if most := orDefault(h.MaxBody, defaultMaxBody); most > 0 {
		return newBody(http.MaxBytesReader(w, r.Body, most), r.Body == http.NoBody)
	}
	return newBody(r.Body, r.Body == http.NoBody)
}

func orDefault[T int | int64 | time.Duration](v, absent T) T {
	if v == 0 {
		return absent
	}
	return v
}

// send does one request. begun tells whether a part of the answer went out.
func (h *Handler) send(w *response, r *http.Request) (begun bool, err error) {
	m, err := h.message(r)
	if err != nil {
		if s, ok := err.(*StatusError); ok && s.Status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		return false, err
	}
	ctx := r.Context()
	if d := h.timeout(); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	m.request.Body = w.body.open
	begun, err = h.exchange(ctx, w, m)
	if failed := w.body.failure(); failed != nil && err != nil {
		err = failed // the program was at fault, not the server
	} else if errors.Is(ctx.Err(), context.DeadlineExceeded) && w.body.waits() && !begun {
		err = &StatusError{Status: http.StatusRequestTimeout, Err: errors.New("the body did not come in time")}
	}
	return begun, err
}

// enter waits for a place among the requests under way.
func (h *Handler) enter(ctx context.Context) (leave func(), err error) {
	h.once.Do(func() { h.places = make(chan struct{}, max(orDefault(h.Requests, defaultRequests), 1)) })
	select {
	case h.places <- struct{}{}:
		return func() { <-h.places }, nil
	case <-ctx.Done():
		err := fmt.Errorf("%d other requests are under way: %w", cap(h.places), ctx.Err())
		return nil, &StatusError{http.StatusServiceUnavailable, soon, err}
	}
}

// exchange sends the message, and the answer to the program.
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
	return w.relay(answer)
}
