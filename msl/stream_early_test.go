package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// An endless body never ends, and signals when it is closed.
type endless struct {
	closed chan struct{}
	given  int64
}

func newEndless() *endless { return &endless{closed: make(chan struct{})} }

func (e *endless) Read(p []byte) (int, error) {
	select {
	case <-e.closed:
		return 0, errors.New("body was closed")
	default:
		e.given += int64(len(p))
		return len(p), nil
	}
}

func (e *endless) Close() error {
	close(e.closed)
	return nil
}

func (e *endless) body() (io.ReadCloser, error) { return e, nil }

// A silent body gives nothing, until it is closed.
type silentBody struct{ closed chan struct{} }

func (s silentBody) Read([]byte) (int, error) {
	<-s.closed
	return 0, io.EOF // which must not look like the end of the data
}

func (s silentBody) Close() error {
	close(s.closed)
	return nil
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal(what)
	}
}

// overHTTP2 is overHTTP with TLS and HTTP/2.
func overHTTP2(t testing.TB, n *network, c *msl.Client, h *mslhttp.Handler) {
	t.Helper()
	h.Server, h.Handle = n.server, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error { return n.handler(ctx, w, m) }
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("request by %s", r.Proto)
		}
		h.ServeHTTP(w, r)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c.Transport = &mslhttp.Transport{URL: s.URL, Client: s.Client(), MaxAnswer: -1}
}

// overStream puts a StreamTransport on an unbuffered pipe in front of c.
func overStream(t testing.TB, n *network, c *msl.Client) {
	t.Helper()
	a, b := pipe(t)
	done := make(chan error, 1)
	go func() {
		done <- n.server.ServeStream(context.Background(), "test", b, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error { return n.handler(ctx, w, m) })
	}()
	t.Cleanup(func() {
		a.Close()
		<-done
	})
	c.Transport = &msl.StreamTransport{RW: a}
}

var carriers = map[string]func(testing.TB, *network, *msl.Client){
	"HTTP/1.1": func(t testing.TB, n *network, c *msl.Client) { overHTTP(t, n, c, &mslhttp.Handler{}) },
	"HTTP/2":   func(t testing.TB, n *network, c *msl.Client) { overHTTP2(t, n, c, &mslhttp.Handler{}) },
	"stream":   func(t testing.TB, n *network, c *msl.Client) { overStream(t, n, c) },
}

// TestStreamEarlyAnswer has a server that answers, at length, before it has read
// anything, to a client that would send forever. The client gets all of the
// answer, and what it sends ends when it closes that.
func TestStreamEarlyAnswer(t *testing.T) {
	size := scaled(8 << 20)
	for _, name := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			c := plain(n, n.pskClient("device"))
			carriers[name](t, n, c)
			mustSend(t, c, secret("get tokens"), 2)
			n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				_, err := io.Copy(w, newSequence(size))
				return err
			}
			for range 2 { // the second one may find the connection of the first
				body := newEndless()
				r, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Body: body.body})
				if err != nil {
					t.Fatal(err)
				}
				got := newSequenceCheck(size)
				_, err = io.Copy(got, r.Body)
				if err := errors.Join(err, got.end(), r.Body.Close()); err != nil {
					t.Fatal(err)
				}
				within(t, "the request is still being sent", body.closed)
			}
		})
	}
}

// TestStreamEarlyRefusal refuses a long message at its header: the client gets the
// error, recovers from it, and the next message goes well.
func TestStreamEarlyRefusal(t *testing.T) {
	long := string(random(int(scaled(2 << 20))))
	for name, carry := range carriers {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			c := plain(n, n.pskClient("device"))
			carry(t, n, c)
			mustSend(t, c, secret("get tokens"), 2)
			refusals := 1
			n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				if refusals--; refusals >= 0 {
					return msl.ErrMasterTokenUntrusted
				}
				return echo(ctx, w, m)
			}
			mustSend(t, c, secret(long), 4)
			refusals = 1
			req := secret(long)
			req.Body = msl.ReaderBody(bytes.NewReader([]byte(long)), len(long))
			if _, data, err := send(t, c, req); err != nil || data != long {
				t.Errorf("body that is kept: %d bytes, %v", len(data), err)
			}
			mustSend(t, c, secret("next"), 2)
		})
	}
}

// TestStreamUnread leaves requests and answers unread, on a connection that
// lasts.
func TestStreamUnread(t *testing.T) {
	long := string(random(int(scaled(2 << 20))))
	for name, carry := range carriers {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			c := plain(n, n.pskClient("device"))
			carry(t, n, c)
			mustSend(t, c, secret("get tokens"), 2)
			for range 2 {
				n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
					_, err := io.WriteString(w, "read nothing")
					return err
				}
				if _, data, err := send(t, c, secret(long)); err != nil || data != "read nothing" {
					t.Fatalf("%q, %v", data, err)
				}
				n.handler = echo
				r, err := c.Do(context.Background(), secret(long))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(r.Body, make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
				if err := r.Body.Close(); err != nil {
					t.Fatal(err)
				}
				mustSend(t, c, secret("next"), 2)
			}
		})
	}
}
