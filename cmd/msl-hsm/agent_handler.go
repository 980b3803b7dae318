package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/watchdog"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// A wish is a message that a program wants to be sent.
type wish struct {
	request  msl.Request
	noAnswer bool
}

// grace is for telling a program that its time is over, linger for it to hear it.
const (
	grace  = 5 * time.Second
	linger = 500 * time.Millisecond
)

// ServeHTTP sends the body of a request as a message, and answers with the data of
// the answer.
func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start, control := time.Now(), http.NewResponseController(w)
	_ = control.EnableFullDuplex() // what has no such modes needs none
	if d := a.config.Client.Agent.Timeout; d > 0 {
		_ = control.SetReadDeadline(start.Add(d + grace))
		_ = control.SetWriteDeadline(start.Add(d + grace))
	}
	body := newProgramBody(http.MaxBytesReader(w, r.Body, a.config.Client.Agent.Body), r.Body == http.NoBody)
	begun, err := a.send(&response{w, body}, r)
	if err == nil {
		a.log.Debug("message", "took", time.Since(start))
		body.end(r.Body)
		return
	}
	a.reporter.Observe(err)
	if r.Context().Err() != nil { // the program is gone
		a.log.Debug("request was given up", "took", time.Since(start))
		panic(http.ErrAbortHandler)
	}
	e := statusOf(err)
	a.log.Warn("no complete answer", "status", e.status, "begun", begun, "took", time.Since(start), slog.Any("error", err))
	if begun { // cut it off, so that nobody takes it for whole
		panic(http.ErrAbortHandler)
	}
	body.endsWith(w.Header())
	a.fail(w, e)
	_ = control.Flush()
	_ = control.SetReadDeadline(time.Now().Add(linger))
	body.end(r.Body)
}

// send does one request. begun tells whether a part of the answer went out.
func (a *agent) send(w *response, r *http.Request) (begun bool, err error) {
	wished, err := a.wish(r)
	if err != nil {
		if s, ok := err.(statusError); ok && s.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		return false, err
	}
	ctx := r.Context()
	if d := a.config.Client.Agent.Timeout; d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	select {
	case a.places <- struct{}{}:
		defer func() { <-a.places }()
	case <-ctx.Done():
		return false, statusError{fmt.Errorf("%d other requests are under way: %w", cap(a.places), ctx.Err()), http.StatusServiceUnavailable, soon}
	}
	wished.request.Body = w.body.open
	begun, err = a.exchange(ctx, w, wished)
	if failed := w.body.failure(); failed != nil && err != nil {
		err = failed // the program was at fault, not the server
	} else if errors.Is(ctx.Err(), context.DeadlineExceeded) && w.body.waits() && !begun {
		err = statusError{errors.New("the body did not come in time"), http.StatusRequestTimeout, 0}
	}
	return begun, err
}

// A response is the one to the request whose body that is.
type response struct {
	http.ResponseWriter
	body *programBody
}

// exchange sends the message, and the answer to the program.
func (a *agent) exchange(ctx context.Context, w *response, wished wish) (begun bool, err error) {
	if wished.noAnswer {
		if err := watchdog.Run(ctx, func() error { return a.client.msl.Send(ctx, &wished.request) }); err != nil {
			return false, err
		}
		w.body.endsWith(w.Header())
		w.WriteHeader(http.StatusAccepted)
		return true, nil
	}
	answer, err := watchdog.Do(ctx, ctx, a.client.msl, &wished.request)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	return w.relay(answer)
}

// relay passes the answer on as it comes. Its status waits for the first bytes, which
// may not be there.
func (w *response) relay(answer *msl.Response) (begun bool, err error) {
	control := http.NewResponseController(w.ResponseWriter)
	for piece := make([]byte, 64<<10); ; {
		n, err := io.ReadAtLeast(answer.Body, piece, 1)
		if err != nil && err != io.EOF {
			return begun, err
		}
		if !begun {
			begun = true
			describe(w.Header(), answer)
			w.body.endsWith(w.Header())
			w.body.readAhead()
		}
		if _, err := w.Write(piece[:n]); err != nil {
			return begun, err
		}
		if err == io.EOF {
			return begun, nil
		}
		if err := control.Flush(); err != nil {
			return begun, err
		}
	}
}

// describe tells of the answer.
func describe(h http.Header, answer *msl.Response) {
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Msl-Message-Id", strconv.FormatInt(answer.MessageID, 10))
	if answer.Identity != "" {
		h.Set("Msl-Identity", mslhttp.EncodeName(answer.Identity))
	}
}

// wish reads what a program wants from its headers. One that is not known is refused,
// since what it asks for would not be done.
func (a *agent) wish(r *http.Request) (wish, error) {
	own := &a.config.Client
	w := wish{request: msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, User: own.User, Recipient: own.Recipient}}
	switch {
	case r.Method != http.MethodPost:
		return w, statusError{errors.New("messages come by POST"), http.StatusMethodNotAllowed, 0}
	case r.URL.Path != "/" || r.URL.RawQuery != "":
		return w, statusError{errors.New("the agent sends to one server: post to / and without a query"), http.StatusNotFound, 0}
	}
	for name, values := range r.Header {
		if !strings.HasPrefix(name, "Msl-") {
			continue
		}
		if err := w.set(name, values); err != nil {
			return w, statusError{err, http.StatusBadRequest, 0}
		}
	}
	return w, a.config.Client.permits(w.request.User)
}

func (w *wish) set(name string, values []string) (err error) {
	if len(values) != 1 {
		return fmt.Errorf("the header %s is repeated", name)
	}
	switch name {
	case "Msl-User":
		if w.request.User, err = url.PathUnescape(values[0]); err != nil {
			return fmt.Errorf("the header %s is not percent-encoded: write %%25 for a percent sign", name)
		}
	case "Msl-Non-Replayable":
		w.request.NonReplayable, err = trueOrFalse(name, values[0])
	case "Msl-No-Answer":
		w.noAnswer, err = trueOrFalse(name, values[0])
	default:
		err = fmt.Errorf("unknown header %s: want Msl-User, Msl-Non-Replayable or Msl-No-Answer", printable(name))
	}
	return err
}

func trueOrFalse(name, value string) (bool, error) {
	if value != "true" && value != "false" {
		return false, fmt.Errorf("the header %s must be true or false", name)
	}
	return value == "true", nil
}

// permits asks that the configuration knows a user: a program says who, and never
// with what password.
func (c *clientConfig) permits(user string) error {
	if _, known := c.Agent.Users[user]; known || user == "" || user == c.User {
		return nil
	}
	return statusError{fmt.Errorf("the agent does not send for the user %s: add them to client.agent.users", printable(user)), http.StatusForbidden, 0}
}

// userAuth proves a user with the password that the configuration names. One that was
// refused is not tried again for the same message.
func (c *agentConfig) userAuth(_ context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
	if reason != 0 {
		return nil, nil
	}
	password, err := secret(c.Users[user], "password of "+printable(user))
	if err != nil {
		return nil, err
	}
	defer password.Close()
	return userauth.EmailPasswordData(user, password.Bytes()), nil
}
