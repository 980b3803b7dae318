package mslhttp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A server closes a WebSocket that it is reading from: the other end sees an orderly end,
// each time, and a writer to an end that takes nothing is let go.
func TestWebSocketClosedWhileRead(t *testing.T) {
	s := httptest.NewServer(&StreamServer{Serve: func(ctx context.Context, c *StreamConn) error {
		c.Proven()
		<-time.After(time.Millisecond)
		coming := c.Readable()
		c.End(nil)
		<-coming
		return nil
	}})
	defer s.Close()
	for range 50 {
		conn, err := (&WebSocketDialer{}).Dial(t.Context(), s.URL)
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
		if err != io.EOF {
			t.Fatalf("the other end sees %v", err)
		}
	}
}

// A WebSocket whose other end answers no close frame is closed soon.
func TestWebSocketClosedAlone(t *testing.T) {
	for name, use := range map[string]func(net.Conn) error{
		"reading": func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"writing": func(c net.Conn) error {
			for {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			took := make(chan time.Duration, 1)
			s := httptest.NewServer(&WebSocketHandler{Serve: func(_ context.Context, c net.Conn, _ *http.Request) error {
				over := make(chan error)
				go func() { over <- use(c) }()
				time.Sleep(50 * time.Millisecond)
				began := time.Now()
				go c.Close()
				if <-over == nil {
					t.Error("it went well")
				}
				took <- time.Since(began)
				return nil
			}})
			defer s.Close()
			ws, _, err := websocket.Dial(t.Context(), s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()
			if d := <-took; d > 3*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// A WebSocket that ends without a close frame, or because the other end failed, broke
// off, like a TCP stream in the middle of a message.
func TestWebSocketBreaksOff(t *testing.T) {
	for name, end := range map[string]func(*websocket.Conn) error{
		"without a close frame": (*websocket.Conn).CloseNow,
		"failed":                func(ws *websocket.Conn) error { return ws.Close(websocket.StatusInternalError, "") },
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, nil)
			if err == nil {
				end(ws)
			}
		}))
		defer s.Close()
		conn, err := (&WebSocketDialer{}).Dial(t.Context(), s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
