package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// pipedWebSockets serves WebSockets in memory, and returns a client for them.
func pipedWebSockets(t *testing.T, h *mslhttp.WebSocketHandler) *http.Client {
	l := newPipeListener(bufferedPipe)
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return &http.Client{Transport: &http.Transport{DialContext: l.dial}}
}

func serveEcho(_ context.Context, conn net.Conn, _ *http.Request) error {
	_, err := io.Copy(conn, conn)
	return err
}

// TestChannelWebSocketKeptOpen says nothing for an hour: the connection stays
// open, because both ends answer pings.
func TestChannelWebSocketKeptOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := pipedWebSockets(t, &mslhttp.WebSocketHandler{Serve: serveEcho})
		conn, err := (&mslhttp.WebSocketDialer{Client: client}).Dial(context.Background(), "http://pipe/")
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan string)
		go func() {
			p := make([]byte, 100)
			n, err := conn.Read(p)
			if err != nil {
				t.Error(err)
			}
			got <- string(p[:n])
		}()
		time.Sleep(time.Hour) // of fake time
		if _, err := io.WriteString(conn, "still there?"); err != nil {
			t.Error(err)
		}
		if s := <-got; s != "still there?" {
			t.Errorf("got %q", s)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestChannelWebSocketSilent has a peer that answers no ping, and one that takes
// nothing: the connection ends.
func TestChannelWebSocketSilent(t *testing.T) {
	for name, serve := range map[string]func(context.Context, net.Conn, *http.Request) error{
		"reading": serveEcho,
		"writing": func(_ context.Context, conn net.Conn, _ *http.Request) error {
			_, err := io.Copy(conn, newEndless())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				done := make(chan error, 1)
				client := pipedWebSockets(t, &mslhttp.WebSocketHandler{Idle: 10 * time.Second, Serve: func(ctx context.Context, conn net.Conn, r *http.Request) error {
					err := serve(ctx, conn, r)
					done <- err
					return err
				}})
				began := time.Now()
				ws, _, err := websocket.Dial(context.Background(), "http://pipe/", &websocket.DialOptions{HTTPClient: client})
				if err != nil {
					t.Fatal(err)
				}
				if err := <-done; err == nil {
					t.Error("it went well")
				}
				if took := time.Since(began); took < 10*time.Second || took > 20*time.Second {
					t.Errorf("it took %v", took)
				}
				ws.CloseNow()
			})
		})
	}
}

// TestChannelWebSocketEnds tells an orderly end from one that is not.
func TestChannelWebSocketEnds(t *testing.T) {
	for name, fails := range map[string]bool{"orderly": false, "failed": true} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(&mslhttp.WebSocketHandler{Serve: func(context.Context, net.Conn, *http.Request) error {
				if fails {
					return errors.New("failed")
				}
				return nil
			}})
			defer s.Close()
			conn, err := (&mslhttp.WebSocketDialer{}).Dial(context.Background(), s.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Read(make([]byte, 1)); (err == io.EOF) == fails {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestChannelWebSocketShutdown ends the base context of a server.
func TestChannelWebSocketShutdown(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := httptest.NewUnstartedServer(&mslhttp.WebSocketHandler{Serve: serveEcho})
	s.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	s.Start()
	defer s.Close()
	conn, err := (&mslhttp.WebSocketDialer{}).Dial(context.Background(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("got %v", err)
	}
}

// TestChannelWebSocketLimit sends a WebSocket message that is too long.
func TestChannelWebSocketLimit(t *testing.T) {
	done := make(chan int64, 1)
	s := httptest.NewServer(&mslhttp.WebSocketHandler{MaxMessage: 1000, Serve: func(_ context.Context, conn net.Conn, _ *http.Request) error {
		n, err := io.Copy(io.Discard, conn)
		done <- n
		return err
	}})
	defer s.Close()
	conn, err := (&mslhttp.WebSocketDialer{}).Dial(context.Background(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(make([]byte, 1000)) // fits
	conn.Write(make([]byte, 100000))
	if n := <-done; n < 1000 || n > 2001 {
		t.Errorf("%d bytes were read", n)
	}
	if _, err := conn.Read(make([]byte, 1)); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("got %v", err)
	}
}

// TestChannelWebSocketOrigin connects as web pages and as other clients do, and
// where there is no WebSocket at all.
func TestChannelWebSocketOrigin(t *testing.T) {
	s := httptest.NewServer(&mslhttp.WebSocketHandler{Serve: serveEcho, Origins: []string{"*.example.com"}})
	defer s.Close()
	none := httptest.NewServer(http.NotFoundHandler())
	defer none.Close()
	for _, test := range []struct {
		url, origin string
		status      int // of a refusal
	}{
		{s.URL, "", 0},
		{s.URL, s.URL, 0},
		{s.URL, "https://app.example.com", 0},
		{s.URL, "https://example.org", http.StatusForbidden},
		{none.URL, "", http.StatusNotFound},
	} {
		header := http.Header{}
		if test.origin != "" {
			header.Set("Origin", test.origin)
		}
		conn, err := (&mslhttp.WebSocketDialer{Header: header}).Dial(context.Background(), test.url)
		var status *mslhttp.StatusError
		if test.status != 0 {
			if !errors.As(err, &status) || status.Status != test.status {
				t.Errorf("%+v: %v", test, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", test, err)
			continue
		}
		conn.Close()
	}
	r, err := http.Post(s.URL, "", bytes.NewReader([]byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("POST: status %d", r.StatusCode)
	}
}
