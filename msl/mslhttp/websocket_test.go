package mslhttp

import (
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

	"github.com/msl-hsm/msl-hsm/msl"
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

// A WebSocket whose other end closes it normally has ended. One that ends without a close
// frame, or for any other reason, broke off, like a TCP stream in the middle of a message.
func TestWebSocketEnd(t *testing.T) {
	closed := func(status websocket.StatusCode) func(*websocket.Conn) error {
		return func(ws *websocket.Conn) error { return ws.Close(status, "") }
	}
	for name, c := range map[string]struct {
		end  func(*websocket.Conn) error
		want error
	}{
		"normal":                {closed(websocket.StatusNormalClosure), io.EOF},
		"going away":            {closed(websocket.StatusGoingAway), io.EOF},
		"no status":             {closed(websocket.StatusNoStatusRcvd), io.EOF},
		"without a close frame": {(*websocket.Conn).CloseNow, io.ErrUnexpectedEOF},
		"failed":                {closed(websocket.StatusInternalError), io.ErrUnexpectedEOF},
		"refused":               {closed(websocket.StatusPolicyViolation), io.ErrUnexpectedEOF},
		"restarted":             {closed(websocket.StatusServiceRestart), io.ErrUnexpectedEOF},
		"private status":        {closed(4000), io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if ws, err := websocket.Accept(w, r, nil); err == nil {
					c.end(ws)
				}
			}))
			defer s.Close()
			conn, err := (&WebSocketDialer{}).Dial(t.Context(), s.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, c.want) || errors.Is(err, io.EOF) != (c.want == io.EOF) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A message in a WebSocket breaks off anywhere, in frames of any size, and the WebSocket ends
// in any way. Only a whole message is taken for one, and only an orderly end between two
// messages is not a failure.
func TestWebSocketMessageCutOff(t *testing.T) {
	header := noneMessage("headerdata", headerInside)
	whole := header + noneChunk(firstInside) + noneChunk(`{"sequencenumber":2,"messageid":1,"endofmsg":true,"data":""}`)
	ends := map[string]func(*websocket.Conn) error{
		"normal":    func(ws *websocket.Conn) error { return ws.Close(websocket.StatusNormalClosure, "") },
		"no status": func(ws *websocket.Conn) error { return ws.Close(websocket.StatusNoStatusRcvd, "") },
		"policy":    func(ws *websocket.Conn) error { return ws.Close(websocket.StatusPolicyViolation, "") },
		"abrupt":    (*websocket.Conn).CloseNow,
	}
	type outcome struct {
		called     bool
		read, over error
	}
	outcomes := make(chan outcome, 1)
	server := noneServer(t)
	server.Limits = msl.Limits{ErrorsPerSecond: 1e9, ErrorsPerSource: 1e9}
	s := httptest.NewServer(&StreamServer{Serve: func(ctx context.Context, c *StreamConn) error {
		var o outcome
		o.over = server.ServeStream(ctx, c.Source, c, func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
			_, err := io.Copy(io.Discard, m.Body)
			if o.called, o.read = true, err; err != nil {
				return err
			}
			return msl.ErrNoReply
		})
		outcomes <- o
		return o.over
	}})
	defer s.Close()
	for name, end := range ends {
		for _, cut := range []int{0, 1, len(header) - 1, len(header), len(header) + 1, len(whole) - 1, len(whole)} {
			for _, frame := range []int{1, 100, len(whole)} {
				ws, _, err := websocket.Dial(t.Context(), s.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				for rest := whole[:cut]; len(rest) > 0; rest = rest[min(frame, len(rest)):] {
					if err := ws.Write(t.Context(), websocket.MessageBinary, []byte(rest[:min(frame, len(rest))])); err != nil {
						t.Fatal(err)
					}
				}
				end(ws)
				o := <-outcomes
				orderly := (cut == 0 || cut == len(whole)) && (name == "normal" || name == "no status")
				if o.called != (cut >= len(header)) || o.called && (o.read == nil) != (cut == len(whole)) || (o.over == nil) != orderly {
					t.Errorf("%s after %d of %d bytes, %d a frame: %+v", name, cut, len(whole), frame, o)
				}
				if o.called && o.read != nil && !errors.Is(o.read, io.ErrUnexpectedEOF) {
					t.Errorf("%s after %d bytes, %d a frame: the application reads %v", name, cut, frame, o.read)
				}
			}
		}
	}
}

// A WebSocket is watched while the application works. It ends in an orderly way after the
// answer, which the read that watched it finds out.
func TestWebSocketEndAfterAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, over := noneServer(t), make(chan error, 1)
		b := newBounded(t, &Connections{Max: 3, PerSource: 3}, &StreamServer{Serve: func(ctx context.Context, c *StreamConn) error {
			err := server.ServeStream(ctx, c.Source, c, c.Attended(func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
				_, err := io.Copy(io.Discard, m.Body)
				time.Sleep(2 * attention) // of fake time
				return errors.Join(err, msl.ErrNoReply)
			}))
			over <- err
			return err
		}})
		client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return b.dialNow("192.0.2.1:1"), nil
		}}}
		ws, _, err := websocket.Dial(context.Background(), "ws://server/", &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			t.Fatal(err)
		}
		message := noneMessage("headerdata", headerInside) + noneChunk(lastInside)
		if err := ws.Write(context.Background(), websocket.MessageBinary, []byte(message)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * attention)
		ws.Close(websocket.StatusNoStatusRcvd, "")
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}
