package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A stalledPeer is the other end of a connection that stops in the middle of a message.
type stalledPeer struct{ *staller }

func (stalledPeer) Write(p []byte) (int, error) { return len(p), nil }

// Close ends the reading.
func (s stalledPeer) Close() error { s.Interrupt(); return nil }

// TestPeersMakeRoom has connections between peers share the memory of their server: the
// one that makes no progress makes room for the next one, and a message that has ended
// occupies nothing.
func TestPeersMakeRoom(t *testing.T) {
	large := `{"x":"` + strings.Repeat("x", 900<<10)
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		r.server.Limits = tight
		r.server.Limits.Chunk, r.server.Limits.Held = 128<<10, 1
		served := func(source string, s stalledPeer) <-chan error {
			conn := msl.NewConn(s, r.server, &msl.Client{Local: r.server.Local})
			conn.Source = source
			done := make(chan error, 1)
			go func() { done <- conn.Serve(context.Background(), echo) }()
			return done
		}
		first, second := stalledPeer{newStaller(large)}, stalledPeer{newStaller(large)}
		slow := served("first", first)
		synctest.Wait()
		began := time.Now()
		other := served("second", second)
		if err := <-slow; err == nil {
			t.Error("the slow one was answered")
		}
		if waited := time.Since(began); waited < time.Second || waited > 2*time.Second {
			t.Errorf("the slow one had %v", waited)
		}
		synctest.Wait()
		if second.sent != len(large) {
			t.Errorf("%d bytes were read of the next one", second.sent)
		}
		second.Interrupt()
		<-other
		r.checkNothingInUse(t)
		r.server.Close()
	})
}

// TestPeersRest exchanges large messages between peers. One of them closes its answers,
// and once forgets to: their memory becomes free.
func TestPeersRest(t *testing.T) {
	one, two := newSides(t, "PSK", "RSA")
	here, there := connect(t, one, two)
	done := serveAll(there, echo, 3)
	body := bytes.Repeat([]byte("data"), 64<<10)
	for n := range 3 {
		r, err := here.Request(t.Context(), &msl.Request{Encrypted: true, Authenticated: true, Body: msl.BytesBody(body)})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if n != 1 {
			r.Body.Close()
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for name, s := range map[string]*msl.Server{"one": one.server, "two": two.server} {
		if unproven, proven := s.InUse(); unproven+proven > 0 {
			t.Errorf("%s: %d and %d bytes are in use", name, unproven, proven)
		}
	}
}

// TestPeersGone has a peer that is refused and then goes away: there is one error for its
// message, and none for what is left of it, or for a connection that is reset.
func TestPeersGone(t *testing.T) {
	const header = `{"entityauthdata":{"scheme":"NONE","authdata":{"identity":"nobody"}},"headerdata":"e30=","signature":"AA=="}`
	gone := errors.New("connection reset")
	for name, c := range map[string]struct {
		rest    io.Reader
		answers int
		err     error
	}{
		"in a chunk":          {strings.NewReader(header + `{"payload":"AA`), 1, msl.ErrTruncated},
		"reset in a chunk":    {io.MultiReader(strings.NewReader(header+`{"payload":"AA`), iotest.ErrReader(gone)), 1, gone},
		"reset after it":      {io.MultiReader(strings.NewReader(header), iotest.ErrReader(gone)), 1, gone},
		"reset before it":     {iotest.ErrReader(gone), 0, gone},
		"in the next message": {strings.NewReader(header + header[:40]), 1, msl.ErrTruncated},
	} {
		r := newRecorded(t)
		var answer bytes.Buffer
		conn := msl.NewConn(struct {
			io.Reader
			io.Writer
		}{c.rest, &answer}, r.server, &msl.Client{Local: r.server.Local})
		var err error
		for err == nil {
			err = conn.Serve(context.Background(), echo)
		}
		if answers := bytes.Count(answer.Bytes(), []byte("errordata")); answers != c.answers || !errors.Is(err, c.err) {
			t.Errorf("%s: %d errors are sent, %v", name, answers, err)
		}
	}
}
