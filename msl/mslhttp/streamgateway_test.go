package mslhttp

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/httpform"
)

// streamed returns a client of a server with that handler on a connection that lasts, and
// what ends the connection.
func streamed(t *testing.T, s *StreamServer, handle msl.Handler) (*msl.Client, *net.TCPConn) {
	t.Helper()
	server := noneServer(t)
	dial, _ := serveStreams(t, s, func(ctx context.Context, c *StreamConn) error {
		return server.ServeStream(ctx, c.Source, c, c.Attended(handle))
	})
	conn := dial().(*net.TCPConn)
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

// TestOriginOfAStream has the service learn where a connection that lasts is from.
func TestOriginOfAStream(t *testing.T) {
	at := service(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("Msl-Client-Address")+" "+r.Header.Get("X-Forwarded-For"))
	})
	c, _ := streamed(t, &StreamServer{}, (&Gateway{Upstream: &Upstream{Targets: []Target{at}}}).Handle)
	if got, err := ask(t, c, []byte("x")); got != "127.0.0.1 127.0.0.1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// silentService says nothing after the beginning of its answer, and tells when nobody
// waits any more.
func silentService(t *testing.T) (at Target, gone <-chan struct{}) {
	ended := make(chan struct{})
	at = service(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	})
	return at, ended
}

// TestGoneWhileServiceIsSilent has a device that goes away while the service says nothing.
func TestGoneWhileServiceIsSilent(t *testing.T) {
	at, gone := silentService(t)
	c, conn := streamed(t, &StreamServer{}, (&Gateway{Upstream: &Upstream{Targets: []Target{at}}}).Handle)
	if _, err := c.Do(t.Context(), &msl.Request{Body: msl.BytesBody([]byte("x"))}); err != nil {
		t.Fatal(err)
	}
	conn.SetLinger(0)
	conn.Close()
	<-gone
}

// TestGoneFromWebSocket is the same for a WebSocket, which has no directions that are
// closed apart.
func TestGoneFromWebSocket(t *testing.T) {
	at, gone := silentService(t)
	server, handle := noneServer(t), (&Gateway{Upstream: &Upstream{Targets: []Target{at}}}).Handle
	web := httptest.NewServer(&StreamServer{Serve: func(ctx context.Context, c *StreamConn) error {
		return server.ServeStream(ctx, c.Source, c, c.Attended(handle))
	}})
	defer web.Close()
	conn, err := new(WebSocketDialer).Dial(t.Context(), web.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := noneClient(t, "")
	c.Transport = &msl.StreamTransport{RW: conn}
	if _, err := c.Do(t.Context(), &msl.Request{Body: msl.BytesBody([]byte("x"))}); err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Unix(1, 0)) // cuts it off
	conn.Close()
	<-gone
}

// TestIdempotencyKeyIsNoPromise has a service that acts on a request without data, and
// ends the kept connection that it came on: net/http must not repeat it for the device.
func TestIdempotencyKeyIsNoPromise(t *testing.T) {
	var acted atomic.Int32
	keys := make(chan string, 2)
	at := service(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			acted.Add(1)
			keys <- r.Header.Get("Idempotency-Key")
			panic(http.ErrAbortHandler)
		}
	})
	c := httpGateway(t, at)
	for _, form := range []string{"GET /x HTTP/1.1\r\nHost: \r\n\r\n", "POST /x HTTP/1.1\r\nHost: \r\nIdempotency-Key: 7\r\nContent-Length: 0\r\n\r\n"} {
		r, err := c.Do(t.Context(), &msl.Request{Body: msl.BytesBody([]byte(httpform.RequestLine + form))})
		if err != nil {
			continue
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	if key := <-keys; key != "7" || acted.Load() != 1 {
		t.Errorf("acted %d times, key %q", acted.Load(), key)
	}
}

// TestWebSocketIdleOfNothing has times in which no ping fits. They end a connection that this
// machine is too busy to serve within milliseconds.
func TestWebSocketIdleOfNothing(t *testing.T) {
	for _, idle := range []time.Duration{-1, 1, 2} {
		web := httptest.NewServer(&StreamServer{Idle: idle, Serve: func(_ context.Context, c *StreamConn) error {
			_, err := io.WriteString(c, "x")
			return err
		}})
		defer web.Close()
		err := readWebSocket(t, web.URL)
		for try := 1; err != nil && idle > 0 && try < 100; try++ {
			err = readWebSocket(t, web.URL)
		}
		if err != nil {
			t.Errorf("%v: %v", idle, err)
		}
	}
}

func readWebSocket(t *testing.T, url string) error {
	t.Helper()
	conn, err := new(WebSocketDialer).Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = io.ReadAll(conn)
	return err
}
