package mslhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// An attempt is one request to one target.
type attempt struct {
	place     *place
	out       *http.Request // of all attempts
	body      *messageBody
	cancel    context.CancelFunc
	span      trace.Span  // or nil
	traced    atomic.Bool // the transport reports the next two
	connected atomic.Bool
	sent      atomic.Bool
}

func newAttempt(p *place, out *http.Request) *attempt {
	return &attempt{place: p, out: out, body: &messageBody{r: out.Body}}
}

// request is that of this attempt.
func (a *attempt) request() *http.Request {
	ctx, cancel := context.WithCancel(a.out.Context())
	a.cancel = cancel
	ctx, a.span = spanOf(ctx)
	r := a.out.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// net/http opens a second connection only if nothing was sent on the first, or if
		// the request can safely be repeated.
		GetConn:      func(string) { a.traced.Store(true); a.connected.Store(false); a.sent.Store(false) },
		GotConn:      func(httptrace.GotConnInfo) { a.connected.Store(true) },
		WroteHeaders: func() { a.sent.Store(true) },
	}))
	r.URL = a.place.address(a.out.URL)
	a.place.authorize(r)
	sendSpan(a.span, r)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = a.body
	}
	return r
}

// run sends the request. The attempt lasts until the body of the response is closed.
func (a *attempt) run() (*http.Response, error) {
	a.place.busy.Add(1)
	response, err := a.place.transport.RoundTrip(a.request())
	if err == nil && a.body.failure() != nil {
		err = errors.Join(a.body.failure(), response.Body.Close())
	}
	if err != nil {
		err = a.because(err)
		tellSpan(a.span, 0, err)
		a.end()
		return nil, err
	}
	tellSpan(a.span, response.StatusCode, nil)
	response.Body = &answerBody{ReadCloser: response.Body, attempt: a}
	return response, nil
}

// because returns why the exchange ended if that ended the attempt, else err.
func (a *attempt) because(err error) error {
	if a.out.Context().Err() != nil {
		return context.Cause(a.out.Context())
	}
	return safetext.Brief(err)
}

func (a *attempt) end() {
	a.cancel()
	if a.span != nil {
		a.span.End()
	}
	a.body.Close()
	a.place.busy.Add(-1)
}

// judge returns what the failure of the attempt means to the peer, or nil if another
// target may be tried.
func (a *attempt) judge(err error) error {
	switch {
	case a.body.failure() != nil:
		return a.body.failure() // the message is at fault, not the service
	case refusedByTLS(err):
		return told(msl.ErrInternalException, textUnreached, err)
	case a.sent.Load(), !a.tells():
		return mayHaveActed(err)
	case a.connected.Load() || a.out.Context().Err() != nil:
		return told(msl.ErrInternalException, textUnreached, err)
	}
	return nil
}

// refusedByTLS reports whether the service rejects this side's certificate, or the lack
// of one. In TLS 1.3 the request is sent before that is known, but a service does not
// read it before it has judged the certificate (RFC 8446 section 4.4.2.4).
func refusedByTLS(err error) bool {
	alert, origin, found := tlsalert.From(err)
	if !found || origin != tlsalert.Received {
		return false
	}
	switch alert {
	case tlsalert.CertificateRequired, tlsalert.BadCertificate, tlsalert.UnsupportedCertificate, tlsalert.CertificateRevoked,
		tlsalert.CertificateExpired, tlsalert.CertificateUnknown, tlsalert.UnknownCA, tlsalert.AccessDenied:
		return true
	}
	return false
}

// tells reports whether it is known if the request was sent. Transports of other packages
// may not report it.
func (a *attempt) tells() bool {
	_, own := a.place.transport.(*http.Transport)
	return own || a.traced.Load()
}

// An answerBody is the body of a response. If it breaks off, the service may have acted.
type answerBody struct {
	io.ReadCloser
	attempt *attempt
	once    sync.Once
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = mayHaveActed(errors.Join(b.attempt.because(err), b.attempt.body.failure()))
	}
	return n, err
}

// Close ends the attempt.
func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.attempt.end)
	return err
}

// A messageBody is the data of a message being sent to the service. It remembers why the
// message could not be read, and ends when the request does: an HTTP client may continue
// to read after the response, but a message must not be read after its handler has
// returned.
type messageBody struct {
	r      io.Reader
	closed atomic.Bool

	mu  sync.Mutex
	err error
}

func (b *messageBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, io.ErrClosedPipe
	}
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !b.closed.Load() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.err = err
	}
	return n, err
}

// Close stops the client from reading on. It does not wait for a read under way.
func (b *messageBody) Close() error {
	b.closed.Store(true)
	return nil
}

// failure returns why the message could not be read to its end, or nil.
func (b *messageBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
