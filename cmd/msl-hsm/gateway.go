package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A gateway passes the data of messages on to an HTTP service.
type gateway struct {
	url, method string
	client      *http.Client
}

func newGateway(url, method string, timeout time.Duration) *gateway {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = timeout
	transport.MaxIdleConnsPerHost = 64
	return &gateway{url: url, method: method, client: &http.Client{
		Transport: transport,
		// A redirect would take the sender's name to another service.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// forward makes a new request of the message. Its headers are ours alone: what
// a client wrote arrives in the body and nowhere else.
func (g *gateway) forward(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	body := &messageBody{r: m.Body}
	ctx, sent := noteSent(ctx)
	request, err := http.NewRequestWithContext(ctx, g.method, g.url, body)
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
	if _, err = io.Copy(w, response.Body); err != nil {
		return mayHaveActed(errors.Join(err, body.failure()))
	}
	return nil
}

// noteSent tells of the request with that context whether it reached the service.
func noteSent(ctx context.Context) (context.Context, *atomic.Bool) {
	sent := new(atomic.Bool)
	trace := &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}
	return httptrace.WithClientTrace(ctx, trace), sent
}

// mayHaveActed is for a service whose word is missing: it had the message. The
// peer is not asked to come again, since it would have it twice.
func mayHaveActed(err error) error {
	var own *msl.Error
	if errors.As(err, &own) || errors.Is(err, msl.ErrTruncated) {
		return err // of the message, or of our answer
	}
	return msl.Failure(msl.ErrMSLCommsFailure, "upstream, which may have acted", err)
}

// refusal tells the peer by an MSL error that the service did not do it: one of
// its own failures may pass, what it refuses may not.
func refusal(status int) error {
	err := fmt.Errorf("upstream answered HTTP %d %s", status, http.StatusText(status))
	if status >= 500 || status == http.StatusTooManyRequests {
		return msl.Failure(msl.ErrInternalException, "upstream", err)
	}
	return msl.Failure(msl.ErrMSLCommsFailure, "upstream", err)
}

// senderHeader says who sent the message.
func senderHeader(m *msl.Message) http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("User-Agent", "msl-hsm")
	h.Set("Msl-Entity", headerText(m.Identity))
	h.Set("Msl-Message-Id", strconv.FormatInt(m.MessageID, 10))
	h.Set("Msl-Encrypted", strconv.FormatBool(m.Encrypted))
	h.Set("Msl-Authenticated", strconv.FormatBool(m.Authenticated))
	h.Set("Msl-Non-Replayable", strconv.FormatBool(m.NonReplayable))
	if m.User != "" {
		h.Set("Msl-User", headerText(m.User))
	}
	if m.Scheme != "" {
		h.Set("Msl-Scheme", headerText(m.Scheme))
	}
	return h
}

// headerText writes a name so that no two names become the same, and none
// becomes another header: all but visible ASCII is percent-encoded.
func headerText(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
