package msl_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// overWebSocket puts a WebSocket in front of c.
func overWebSocket(t testing.TB, n *network, c *msl.Client) {
	t.Helper()
	c.Transport = &msl.StreamTransport{RW: dialWebSocket(t, func(ctx context.Context, conn net.Conn, r *http.Request) error {
		return n.server.ServeStream(ctx, r.RemoteAddr, conn, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error { return n.handler(ctx, w, m) })
	})}
}

// dialWebSocket returns a connection to a server of its own. The server must end
// without an error when the connection is closed.
func dialWebSocket(t testing.TB, serve func(context.Context, net.Conn, *http.Request) error) net.Conn {
	t.Helper()
	done := make(chan error, 1)
	s := httptest.NewServer(&mslhttp.WebSocketHandler{Serve: func(ctx context.Context, conn net.Conn, r *http.Request) error {
		err := serve(ctx, conn, r)
		done <- err
		return err
	}})
	conn, err := (&mslhttp.WebSocketDialer{}).Dial(context.Background(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(conn.Close(), <-done); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return conn
}

// TestChannelServices keeps both directions of one request open in a trusted-services
// network, over each transport, and then sends ordinary messages.
func TestChannelServices(t *testing.T) {
	all := map[string]func(testing.TB, *network, *msl.Client){"WebSocket": overWebSocket}
	maps.Copy(all, carriers)
	for name, carry := range all {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			c := n.pskClient("device")
			carry(t, n, c)
			mustSend(t, c, secret("get tokens"), 2)
			for range 2 {
				n.handler = shout
				talk(t, func(body io.Reader) (*msl.Response, error) {
					r, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Interactive: true, Body: msl.ReaderBody(body, 0)})
					if err == nil && r.Messages != 2 {
						t.Errorf("took %d messages", r.Messages)
					}
					return r, err
				})
				n.handler = echo
				mustSend(t, c, secret("next"), 2)
			}
		})
	}
}

// TestChannelServerFirst has the server send data before the client does.
func TestChannelServerFirst(t *testing.T) {
	for name, carry := range carriers {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			c := n.pskClient("device")
			carry(t, n, c)
			mustSend(t, c, secret("get tokens"), 2)
			n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				fmt.Fprint(w, "name?\n")
				if err := w.Flush(); err != nil {
					return err
				}
				name, err := io.ReadAll(m.Body)
				fmt.Fprintf(w, "hello %s", name)
				return err
			}
			body, ours := io.Pipe()
			r, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Interactive: true,
				Body: func() (io.ReadCloser, error) { return body, nil }})
			if err != nil {
				t.Fatal(err)
			}
			answer := bufio.NewReader(r.Body)
			if line, err := answer.ReadString('\n'); line != "name?\n" {
				t.Fatalf("%q, %v", line, err)
			}
			io.WriteString(ours, "device")
			ours.Close()
			if rest, err := io.ReadAll(answer); string(rest) != "hello device" || err != nil {
				t.Errorf("%q, %v", rest, err)
			}
			if err := r.Body.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestChannelRefused has the server refuse a channel whose body stays open: the
// refusal comes back, and does not wait for the body.
func TestChannelRefused(t *testing.T) {
	for name, carry := range carriers {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			c := n.pskClient("device")
			carry(t, n, c)
			mustSend(t, c, secret("get tokens"), 2)
			n.handler = func(context.Context, *msl.ResponseWriter, *msl.Message) error { return msl.ErrEntityNotFound }
			body, _ := io.Pipe()
			_, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Interactive: true,
				Body: func() (io.ReadCloser, error) { return body, nil }})
			if !errors.Is(err, msl.ErrEntityNotFound) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestChannelWebSocketPeers is TestChannel over a WebSocket: peers that both issue
// tokens, a channel, and then the other way round.
func TestChannelWebSocketPeers(t *testing.T) {
	one, two := newSides(t, "PSK", "RSA")
	conn := dialWebSocket(t, func(ctx context.Context, conn net.Conn, r *http.Request) error {
		c := msl.NewConn(conn, two.server, two.client)
		if err := errors.Join(c.Serve(ctx, echo), c.Serve(ctx, shout)); err != nil {
			return err
		}
		if _, data := ask(t, c, &msl.Request{Encrypted: true, Body: msl.BytesBody([]byte("back"))}); data != "back" {
			t.Errorf("got %q", data)
		}
		if err := c.Serve(ctx, echo); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		return nil
	})
	c := msl.NewConn(conn, one.server, one.client)
	ask(t, c, secret2("to exchange keys"))
	talk(t, func(body io.Reader) (*msl.Response, error) {
		req := secret2("")
		req.Body, req.Interactive = msl.ReaderBody(body, 0), true
		return c.Request(context.Background(), req)
	})
	if err := c.Serve(context.Background(), echo); err != nil {
		t.Error(err)
	}
}

// TestChannelPeerCancel ends the context of both sides of a channel, one after the
// other.
func TestChannelPeerCancel(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	a, b := pipe(t)
	first, second := msl.NewConn(a, one.server, one.client), msl.NewConn(b, two.server, two.client)
	done := make(chan error, 2)
	go func() {
		done <- second.Serve(context.Background(), echo)
		done <- second.Serve(context.Background(), shout)
	}()
	ask(t, first, secret2("to exchange keys"))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	body, ours := io.Pipe()
	go fmt.Fprintln(ours, "line")
	r, err := first.Request(ctx, &msl.Request{Encrypted: true, Interactive: true, Body: func() (io.ReadCloser, error) { return body, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r.Body, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("reader: %v", err)
	}
	_, err = ours.Write([]byte("x")) // its reader was closed, or is about to be
	if err == nil {
		_, err = ours.Write([]byte("x"))
	}
	if err == nil {
		t.Error("the body is still being read")
	}
	if err := r.Body.Close(); err == nil {
		t.Error("a channel that broke off closed well")
	}
	if err := <-done; err == nil {
		t.Error("the other side saw no error")
	}
}
