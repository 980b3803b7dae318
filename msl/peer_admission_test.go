package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// An oneWayConn is a connection whose end has sent all it will.
type oneWayConn struct{ io.Reader }

func (oneWayConn) Write(p []byte) (int, error) { return len(p), nil }

// TestPeerGarbageIsPaidFor has a peer send garbage after a long silence, while messages of
// established sessions fill the server: the peer is held up, as every sender of garbage is,
// and for no longer, and the silence does not count as time that its message took.
func TestPeerGarbageIsPaidFor(t *testing.T) {
	r := newRecorded(t)
	client := &msl.Client{Local: localSchemes(t)["PSK"], Time: r.clock}
	t.Cleanup(func() { client.Close() })
	served := reported(r.server)
	synctest.Test(t, func(t *testing.T) {
		for range 1000 {
			defer r.server.Establish()()
		}
		time.Sleep(10 * time.Second) // until they count
		late, sent := io.Pipe()
		conn := msl.NewConn(oneWayConn{late}, r.server, client)
		go func() {
			time.Sleep(time.Hour)
			io.Copy(sent, strings.NewReader("GET / HTTP/1.1\r\n"))
		}()
		began := time.Now()
		if err := conn.Serve(t.Context(), echo); err != nil {
			t.Fatal(err)
		}
		if paid := time.Since(began) - time.Hour; paid <= 0 || paid > time.Second {
			t.Errorf("held up for %v", paid)
		}
	})
	if len(*served) != 1 || (*served)[0].Took > time.Minute {
		t.Errorf("reported %+v", *served)
	}
}

// A watchedResponder looks at the server while it makes keys.
type watchedResponder struct {
	msl.Responder
	steps *int
	s     *msl.Server
}

func (w watchedResponder) Respond(ctx context.Context, from msl.Requester, keydata []byte) (*msl.SessionKeys, []byte, error) {
	_, *w.steps = w.s.UnderWay()
	return w.Responder.Respond(ctx, from, keydata)
}

// TestPeerHandshakeIsAdmitted has a peer without a session ask for keys by a handshake: they
// are made when it is its turn, as those of every stranger are.
func TestPeerHandshakeIsAdmitted(t *testing.T) {
	one, two := newSides(t, "RSA", "PSK")
	steps := 0
	for i, x := range two.server.KeyExchanges {
		two.server.KeyExchanges[i] = watchedResponder{x, &steps, two.server}
	}
	first, second := connect(t, one, two)
	done := serveAll(second, echo, 1)
	ask(t, first, secret2("x"))
	if err := <-done; err != nil || steps != 1 {
		t.Errorf("%d steps under way: %v", steps, err)
	}
}

// TestPeerGarbage has a peer send something that is not a message. It gets one answer, and the
// connection cannot be used any more, in either direction.
func TestPeerGarbage(t *testing.T) {
	message := string(rawKeys{}.message(byScheme("NONE", object{"identity": "client3"}), one(), hello))
	for name, c := range map[string]struct {
		sent    string
		answers int
	}{
		"garbage":         {"GET / HTTP/1.1\r\n", 1},
		"after a message": {message + "\n" + message, 2},
		"cut off":         {message[:50], 1},
	} {
		r := newRecorded(t)
		var answers bytes.Buffer
		client := &msl.Client{Local: localSchemes(t)["PSK"], Time: r.clock}
		t.Cleanup(func() { client.Close() })
		conn := msl.NewConn(struct {
			io.Reader
			io.Writer
		}{strings.NewReader(c.sent), &answers}, r.server, client)
		for range c.answers {
			if err := conn.Serve(t.Context(), echo); err != nil {
				t.Fatal(name, err)
			}
		}
		size := answers.Len()
		if err := conn.Serve(t.Context(), echo); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: served on: %v", name, err)
		}
		if _, err := conn.Request(t.Context(), &msl.Request{}); err == nil || answers.Len() != size {
			t.Errorf("%s: %d bytes sent after the end, %v", name, answers.Len()-size, err)
		}
	}
}
