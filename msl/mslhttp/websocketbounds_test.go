package mslhttp

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// dialWebSocket makes a WebSocket to the server.
func (b *bounded) dialWebSocket(from string) (net.Conn, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return b.dialNow(from), nil
	}}}
	b.t.Cleanup(client.CloseIdleConnections)
	return (&WebSocketDialer{Client: client}).Dial(context.Background(), "ws://server/")
}

// A busy WebSocket is kept, and connections without activity make room for others.
func TestBusyWebSocketIsKept(t *testing.T) {
	for _, busy := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBounded(t, &Connections{Max: 3, PerSource: 3}, &WebSocketHandler{Serve: func(_ context.Context, conn net.Conn, _ *http.Request) error {
				_, err := io.Copy(conn, conn)
				return err
			}})
			ws, err := b.dialWebSocket("192.0.2.1:1")
			if err != nil {
				t.Fatal(err)
			}
			stop, over := make(chan bool), make(chan error, 1)
			go func() {
				piece := make([]byte, 10)
				for err == nil {
					select {
					case <-stop:
						over <- nil
						return
					case <-time.After(20 * time.Millisecond):
					}
					if busy {
						_, err = ws.Write(piece)
					}
					if busy && err == nil {
						_, err = io.ReadFull(ws, piece)
					}
				}
				over <- err
			}()
			for range 4 {
				b.dial("192.0.2.1:1")
			}
			close(stop)
			err = <-over
			if !busy && err == nil {
				_, err = ws.Read(make([]byte, 1))
			}
			if (err == nil) != busy {
				t.Errorf("busy: %v: %v", busy, err)
			}
			ws.Close()
		})
	}
}

// Behind a trusted proxy, WebSockets are counted by the source that the proxy gives.
func TestWebSocketsPerSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := &WebSocketHandler{
			Source: func(*http.Request) string { return "one" },
			Serve: func(_ context.Context, conn net.Conn, _ *http.Request) error {
				_, err := io.Copy(conn, conn)
				return err
			},
		}
		b := newBounded(t, &Connections{Max: 10, PerSource: 2, Trusted: networks("192.0.2.0/24")}, handler)
		var all []net.Conn
		for i := range 3 {
			ws, err := b.dialWebSocket("192.0.2.1:1")
			if refused, _ := err.(*StatusError); (err == nil) != (i < 2) || err != nil && (refused == nil || refused.Status != http.StatusServiceUnavailable || refused.RetryAfter == "") {
				t.Errorf("WebSocket %d: %v", i, err)
			}
			if err == nil {
				all = append(all, ws)
			}
		}
		for _, ws := range all {
			ws.Close()
		}
		synctest.Wait()
		if ws, err := b.dialWebSocket("192.0.2.1:1"); err != nil {
			t.Errorf("after the others ended: %v", err)
		} else {
			ws.Close()
		}
	})
}

// TestWebSocketWithBody has a request that announces a body, and never sends it.
func TestWebSocketWithBody(t *testing.T) {
	for _, body := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
		s := httptest.NewServer(&WebSocketHandler{Serve: func(context.Context, net.Conn, *http.Request) error { return nil }})
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"+body+"\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != http.StatusBadRequest || !answer.Close {
			t.Errorf("%s: %+v, %v", body, answer, err)
		}
		conn.Close()
		s.Close()
	}
}
