package mslhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A Gateway passes the data of messages on to an ordinary HTTP service, and sends the
// body of its response back; both are streams. Its method Handle is a [msl.Handler]. It
// is safe for concurrent use. Its fields must not change after the first message.
//
// The gateway sets all headers of a request itself, so that no client can forge them:
//
//	Msl-Entity          identity of the sender
//	Msl-User            the user, if the message has one
//	Msl-Scheme          how the sender proved its identity; absent under a master token
//	Msl-Encrypted       true or false
//	Msl-Authenticated   true or false
//	Msl-Non-Replayable  true if the message is known not to be a replay
//	Msl-Message-Id      the number of the message, in decimal
//
// Names in them are encoded by [EncodeName]. Make sure that only the gateway can reach
// the service, since the service trusts these headers.
//
// A response with Cache-Control: no-transform (RFC 9111, section 5.2.2.6) or with
// Msl-No-Compression: true is sent uncompressed. That is for a secret beside text that
// somebody else can choose.
//
// If the service cannot be reached, or answers 5xx or 429, the peer gets
// [msl.ErrInternalException], which asks it to try again. For any other status except
// 2xx it gets [msl.ErrMSLCommsFailure]. It gets that, too, if the service received the
// request but its response did not come or broke off: the service may have acted on
// the message, and would act on it again.
type Gateway struct {
	URL    string // of the service
	Method string // empty means POST

	// Timeout is how long the service may take from the end of a request to the
	// beginning of its response; zero means 30 seconds, negative no bound. It is
	// ignored if Client is set.
	Timeout time.Duration

	// Client sends requests to the service; nil means one that keeps up to 64
	// connections open. Redirects are never followed, since that would disclose the
	// sender's name to another service: the peer gets an error instead.
	Client *http.Client

	once   sync.Once
	client *http.Client
}

const (
	defaultServiceTimeout = 30 * time.Second
	serviceConnections    = 64 // kept open
)

// Handle sends the message to the service in a new request, and answers with the body
// of the response. The error is an [*msl.Error], or says why the message could not be
// read.
func (g *Gateway) Handle(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	g.once.Do(g.connect)
	body := &messageBody{r: m.Body}
	ctx, sent := noteSent(ctx)
	request, err := http.NewRequestWithContext(ctx, g.method(), g.URL, body)
	if err != nil {
		return fmt.Errorf("upstream request: %w", err)
	}
	request.Header = senderHeader(m)
	response, err := g.client.Do(request)
	switch {
	case body.failure() != nil:
		return body.failure() // the message was at fault, not the service
	case err != nil && sent.Load():
		return mayHaveActed(err)
	case err != nil:
		return msl.Failure(msl.ErrInternalException, "upstream", err)
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return refusal(response.StatusCode)
	}
	if asIs(response.Header) {
		w.Uncompressed = true
	}
	if _, err = io.Copy(w, response.Body); err != nil {
		return mayHaveActed(errors.Join(err, body.failure()))
	}
	return nil
}

func (g *Gateway) method() string {
	if g.Method == "" {
		return http.MethodPost
	}
	return g.Method
}

// connect makes the client for the service.
func (g *Gateway) connect() {
	client := http.Client{}
	if g.Client != nil {
		client = *g.Client
	} else {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.ResponseHeaderTimeout = max(orDefault(g.Timeout, defaultServiceTimeout), 0)
		transport.MaxIdleConnsPerHost = serviceConnections
		client.Transport = transport
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	g.client = &client
}

// noteSent returns a context that records whether its request was sent to the service.
func noteSent(ctx context.Context) (context.Context, *atomic.Bool) {
	sent := new(atomic.Bool)
	trace := &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}
	return httptrace.WithClientTrace(ctx, trace), sent
}

// mayHaveActed is the error for a service that got the message and gave no complete
// response. The peer is not asked to try again, since the service would then get the
// message twice.
func mayHaveActed(err error) error {
	var own *msl.Error
	if errors.As(err, &own) || errors.Is(err, msl.ErrTruncated) {
		return err // about the message, or the answer to it
	}
	return msl.Failure(msl.ErrMSLCommsFailure, "upstream, which may have acted", err)
}

// asIs reports whether a response must not be compressed.
func asIs(h http.Header) bool {
	if strings.EqualFold(h.Get("Msl-No-Compression"), "true") {
		return true
	}
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		if strings.EqualFold(strings.TrimSpace(directive), "no-transform") {
			return true
		}
	}
	return false
}

// refusal is the error for a service that did not do what the message asks for. A
// failure of the service may be temporary; a refusal is not.
func refusal(status int) error {
	err := fmt.Errorf("upstream answered HTTP %d %s", status, http.StatusText(status))
	if status >= 500 || status == http.StatusTooManyRequests {
		return msl.Failure(msl.ErrInternalException, "upstream", err)
	}
	return msl.Failure(msl.ErrMSLCommsFailure, "upstream", err)
}

// senderHeader returns headers that say who sent the message.
func senderHeader(m *msl.Message) http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("User-Agent", "msl-hsm")
	h.Set("Msl-Entity", EncodeName(m.Identity))
	h.Set("Msl-Message-Id", strconv.FormatInt(m.MessageID, 10))
	h.Set("Msl-Encrypted", strconv.FormatBool(m.Encrypted))
	h.Set("Msl-Authenticated", strconv.FormatBool(m.Authenticated))
	h.Set("Msl-Non-Replayable", strconv.FormatBool(m.NonReplayable))
	if m.User != "" {
		h.Set("Msl-User", EncodeName(m.User))
	}
	if m.Scheme != "" {
		h.Set("Msl-Scheme", EncodeName(m.Scheme))
	}
	return h
}

// EncodeName encodes the name of an entity or a user as the value of an HTTP header:
// everything except visible ASCII is percent-encoded, and so is the percent sign. No
// two names have the same encoding, and no name can end the header. To decode it, use
// PathUnescape of package net/url.
func EncodeName(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
