package mslhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// An Upstream is an ordinary HTTP service behind a server of messages. It may run in
// several addresses, its targets. [Upstream.Do] sends a request to one of them for a
// message, and names the sender in headers. An Upstream is safe for concurrent use. Its
// fields must not change after the first request.
//
// A request goes to the target with the fewest requests under way, in turn among equals.
// It goes to another one only if no connection was made, so that no target can have seen
// it. A target that could not be reached, or fails Check, is tried again only after Rest,
// or if all others fail, too.
//
// Every request has these headers, and no client can forge them:
//
//	Msl-Entity              identity of the sender
//	Msl-User                the user, if the message has one
//	Msl-Scheme              how the sender proved its identity; absent under a master token
//	Msl-Encrypted           true or false
//	Msl-Authenticated       true or false
//	Msl-Non-Replayable      true if the message is known not to be a replay
//	Msl-Message-Id          the number of the message, in decimal
//	Msl-Client-Address      IP address that the message came from, if known
//	X-Forwarded-For         the same, for programs that know this name
//	Msl-Tls-Server-Name     server name that the client requested in TLS, if any
//	Msl-Tls-Client-Subject  subject of the client certificate verified by TLS, if any
//
// Names in them are encoded by [EncodeName]. The last four need a [Handler] or a
// [WebSocketHandler]. Those about TLS describe the connection to this server, whose other
// end may be a proxy. Make sure that only this server can reach the service, since the
// service trusts these headers.
type Upstream struct {
	Targets []Target   // at least one
	TLS     *TLSClient // for https; nil means the zero TLSClient
	Proxy   *url.URL   // with scheme http, to tunnel through; nil means none, whatever the environment says

	// Header is set in every request, and may be secret. It replaces headers of the
	// same names; those that [CheckHeaderName] refuses are an error. No verb of package
	// fmt, and no JSON, shows it.
	Header http.Header `json:"-"`

	Connect time.Duration // how long connecting may take; zero means 5 seconds, negative no limit
	// Timeout is how long the service may take from the end of a request to the beginning
	// of its response; zero means 30 seconds, negative no limit.
	Timeout time.Duration

	// Buffer is how many bytes of a message may be read ahead to find its length, which
	// the service gets as Content-Length. A longer message is streamed with
	// Transfer-Encoding: chunked, which some services do not read. Zero means 1 MiB,
	// negative only the first chunk. [msl.Limits].Held also applies.
	Buffer int
	Whole  bool // a longer message gets an error instead of being streamed; see also HTTPGateway

	Rest  time.Duration // how long a failed target is spared; zero means 10 seconds
	Check HealthCheck   // zero means none

	Trusted TrustedProxies // as for the Source of the Handler
	Log     *slog.Logger   // of targets that fail and recover; nil means none

	// Report, if not nil, is called for each request when its response begins, or when it
	// failed. It must not block.
	Report func(*msl.Message, UpstreamCall)

	// Transport carries the requests to all targets. Nil means one transport per target,
	// which keeps up to 64 connections open. TLS, Proxy, Connect and Timeout apply only
	// to those. If a Transport does not report by httptrace that it made no connection, a
	// failed request goes to no other target.
	Transport http.RoundTripper

	once   sync.Once
	err    error // in the fields
	places []*place
	turn   atomic.Uint32
}

// Format implements fmt.Formatter.
func (u *Upstream) Format(w fmt.State, _ rune) { fmt.Fprintf(w, "upstream %v", u.Targets) }

const (
	defaultConnect        = 5 * time.Second
	defaultServiceTimeout = 30 * time.Second
	defaultBuffer         = 1 << 20
	defaultRest           = 10 * time.Second
	serviceConnections    = 64 // kept open
	// serviceIdle is how long an idle connection is kept: services close theirs after as
	// little as 2 seconds, and a request sent at that moment is lost.
	serviceIdle = 1500 * time.Millisecond
)

// Verify returns what is wrong with the fields, or nil. It connects to nothing.
func (u *Upstream) Verify() error { return u.open() }

// Start checks the fields and starts the health checks. When ctx ends, they stop, and
// unused connections are closed. Without Start there are no health checks.
func (u *Upstream) Start(ctx context.Context) error {
	if err := u.open(); err != nil {
		return err
	}
	for _, p := range u.places {
		if u.Check.Path != "" {
			go u.watch(ctx, p)
		}
		context.AfterFunc(ctx, p.closeIdle)
	}
	return nil
}

// Continue makes u use what former, which it replaces, knows about the targets that both
// have: an outage that began earlier is not news, and a failed target is not tried first.
// Afterward former also knows what u learns, so call it once nothing can prevent the
// replacement. If only former checks its targets, they start anew. Call it before Start
// and the first request.
func (u *Upstream) Continue(former *Upstream) {
	if u.open() != nil || former.open() != nil || u.Check.Path == "" && former.Check.Path != "" {
		return
	}
	for _, p := range u.places {
		for _, old := range former.places {
			if old.String() == p.String() {
				p.condition = old.condition
			}
		}
	}
}

func (u *Upstream) open() error {
	u.once.Do(func() {
		u.err = u.checkFixed()
		if len(u.Targets) == 0 {
			u.err = errors.New("mslhttp: upstream without a target")
		}
		if u.Check.Interval < 0 || u.Check.Timeout < 0 {
			u.err = errors.Join(u.err, errors.New("mslhttp: health check with a negative time"))
		}
		if u.Check.Path != "" {
			u.err = errors.Join(u.err, CheckHealthPath(u.Check.Path))
		}
		for _, t := range u.Targets {
			u.err = errors.Join(u.err, t.check())
			p := &place{Target: t, transport: u.Transport, condition: &condition{}}
			if u.Transport == nil {
				own, err := u.transport(t)
				u.err = errors.Join(u.err, err)
				p.transport = own
			}
			u.places = append(u.places, p)
		}
	})
	return u.err
}

// Do sends a request for a message, and returns the response, whatever its status;
// redirects are not followed. It uses r's context, which should be the handler's, its
// method, its headers, and the path and query of its URL, which are added to those of the
// target; a path with "." or ".." as a segment, which could lead out of the target's, is
// an error. If r has no body, its body is the rest of the message's. Otherwise it is sent
// as it is, with r.ContentLength.
//
// Headers of r that concern the connection, that could be mistaken for those that
// Upstream sets, or that HTTP does not permit, are left out. So r may be made from what
// the sender wrote.
//
// An error is an [*msl.Error] to return from the handler, or says why the message could
// not be read. It is [msl.ErrInternalException], which asks the peer to try again, if the
// request was not sent, and [msl.ErrMSLCommsFailure] if the service may have acted.
// Errors while reading the response are the same. The body of the response must be
// closed.
func (u *Upstream) Do(m *msl.Message, r *http.Request) (*http.Response, error) {
	err := u.open()
	if err != nil {
		return nil, told(msl.ErrInternalException, textUnreached, err)
	}
	out, err := u.request(m, r)
	if err != nil {
		return nil, err
	}
	for _, p := range u.order() {
		a := newAttempt(p, out)
		began := time.Now()
		response, failed := a.run()
		if u.Report != nil {
			u.Report(m, callOf(p, response, time.Since(began), failed))
		}
		if failed == nil {
			u.returned(p, began)
			return response, nil
		}
		final := a.judge(failed)
		if final == nil || refusedByTLS(failed) {
			u.failed(p, failed)
		}
		if final != nil {
			return nil, final
		}
		err = failed
	}
	return nil, told(msl.ErrInternalException, textUnreached, err)
}

// request makes the request to send, except for the target.
func (u *Upstream) request(m *msl.Message, r *http.Request) (*http.Request, error) {
	if r.Method != "" && !isToken(r.Method) {
		return nil, told(msl.ErrMSLCommsFailure, textUnsendable, fmt.Errorf("%q is not a method of HTTP", r.Method))
	}
	if r.URL != nil {
		if err := checkDots(strings.ReplaceAll(r.URL.Path, `\`, "/")); err != nil {
			return nil, told(msl.ErrMSLCommsFailure, textUnsendable, fmt.Errorf("path %q: %w", r.URL.Path, err))
		}
	}
	out := (&http.Request{
		Method: r.Method, URL: r.URL, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: u.headers(m, r), Body: r.Body, ContentLength: r.ContentLength,
	}).WithContext(r.Context())
	if r.Body != nil || m.Body == nil {
		return out, nil
	}
	have, whole, err := m.ReadAhead(cmp.Or(u.Buffer, defaultBuffer))
	switch {
	case err != nil:
		return nil, err
	case !whole && u.Whole:
		return nil, told(msl.ErrMSLCommsFailure, textTooLong, errTooLong)
	case whole && have == 0:
		out.Body = http.NoBody
		return out, nil
	}
	out.Body, out.ContentLength = io.NopCloser(m.Body), -1
	if whole {
		out.ContentLength = have
	}
	return out, nil
}
