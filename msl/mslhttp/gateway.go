package mslhttp

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A Gateway forwards the data of messages to an ordinary HTTP service, and sends the body
// of its response back; both are streams. Its method Handle is a [msl.Handler]. It is
// safe for concurrent use. Its fields must not change after the first message.
//
// The service learns who sent a message from the headers that [Upstream] describes.
//
// A response with Cache-Control: no-transform (RFC 9111, section 5.2.2.6) or with
// Msl-No-Compression: true is sent uncompressed. Use this for a secret next to text that
// someone else can choose.
//
// If the service cannot be reached, or answers 429 or 5xx except 501 and 505, the peer
// gets [msl.ErrInternalException], which asks it to try again. For any other status
// except 2xx it gets [msl.ErrMSLCommsFailure]; both name the status. It also gets the
// latter if the service received the request but its response did not come or broke off:
// the service may have acted on the message, and would act on it again.
type Gateway struct {
	Upstream *Upstream // the service; nil means the one of URL, Timeout and Client

	Method      string // empty means POST
	ContentType string // of the data; empty means application/octet-stream

	URL     string        // of the service, in the form that [ParseTarget] reads
	Timeout time.Duration // see [Upstream]; ignored if Client is set

	// Client sends requests to the service; nil means the Transport of an [Upstream].
	// Redirects are never followed, which would disclose the sender's name to another
	// service: the peer gets an error instead.
	Client *http.Client

	once sync.Once
	own  *Upstream
	err  error
}

// Handle sends the message to the service in a new request, and answers with the body
// of the response. The error is an [*msl.Error], or says why the message could not be
// read.
func (g *Gateway) Handle(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	g.once.Do(g.open)
	if g.err != nil {
		return fmt.Errorf("upstream request: %w", g.err)
	}
	request, err := http.NewRequestWithContext(ctx, orEmpty(g.Method, http.MethodPost), "", nil)
	if err != nil {
		return fmt.Errorf("upstream request: %w", err)
	}
	request.Header["Content-Type"] = []string{orEmpty(g.ContentType, "application/octet-stream")}
	response, err := g.own.Do(m, request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return refusal(response.StatusCode)
	}
	return CopyBody(w, response)
}

func orEmpty(text, absent string) string {
	if text == "" {
		return absent
	}
	return text
}

// open finds the upstream.
func (g *Gateway) open() {
	if g.own = g.Upstream; g.own != nil {
		return
	}
	target, err := ParseTarget(g.URL)
	if err != nil {
		g.err = err
		return
	}
	g.own = &Upstream{Targets: []Target{target}, Timeout: g.Timeout}
	if g.Client != nil {
		client := *g.Client
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		g.own.Transport = byClient{&client}
	}
}

// byClient sends requests with a client.
type byClient struct{ *http.Client }

// RoundTrip sends the request.
func (c byClient) RoundTrip(r *http.Request) (*http.Response, error) { return c.Do(r) }
