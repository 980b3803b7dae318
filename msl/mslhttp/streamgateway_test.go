package mslhttp

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// streamed returns a client of a server with that handler on a connection that lasts, and
// what ends the connection.
func streamed(t *testing.T, s *StreamServer, handle msl.Handler) (*msl.Client, io.Closer) {
	t.Helper()
	server := noneServer(t)
	dial, _ := serveStreams(t, s, func(ctx context.Context, c *StreamConn) error {
		return server.ServeStream(ctx, c.Source, c, handle)
	})
	conn := dial()
	c := noneClient(t, "")
	c.Transport = &msl.StreamTransport{RW: conn}
	return c, conn
}

// TestEarlyAnswerOnStream has a service that answers before it has the whole request: what
// is left of the request and the message after it must not be read at the same time.
func TestEarlyAnswerOnStream(t *testing.T) {
	at := service(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "early")
	})
	c, _ := streamed(t, &StreamServer{}, (&Gateway{Upstream: &Upstream{Targets: []Target{at}, Buffer: -1}}).Handle)
	for range 4 {
		body, device := io.Pipe()
		go io.WriteString(device, "a")
		r, err := c.Do(t.Context(), &msl.Request{Interactive: true, Body: func() (io.ReadCloser, error) { return body, nil }})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r.Body); string(got) != "early" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		go func() {
			io.WriteString(device, strings.Repeat("b", 100_000))
			device.Close()
		}()
		if err := r.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := ask(t, c, []byte("x")); got != "early" || err != nil {
			t.Fatalf("then %q, %v", got, err)
		}
	}
}
