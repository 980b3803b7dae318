package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestPushAfterward pushes messages on the connection of a request, once that is
// answered, and then answers the next request on it.
func TestPushAfterward(t *testing.T) {
	n := softNetwork(t)
	c := n.pskClient("device")
	a, b := pipe(t)
	news := make(chan string)
	served := make(chan error, 1)
	go func() {
		served <- n.server.ServeStream(t.Context(), "pipe", b, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.Afterward(func() error {
				for text := range news {
					err := w.Push(b, func(p *msl.ResponseWriter) error { _, err := io.WriteString(p, text); return err })
					if err != nil {
						return err
					}
				}
				return nil
			})
			return echo(ctx, w, m)
		})
	}()
	transport := &msl.StreamTransport{RW: a}
	c.Transport = transport
	mustSend(t, c, secret("subscribe"), 2)
	stream, err := transport.Unasked(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	inbox := c.NewInbox(stream)
	for i := range 3 {
		text := fmt.Sprint("news ", i)
		go func() { news <- text }()
		r, err := inbox.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		if err := errors.Join(err, r.Body.Close()); string(got) != text || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	close(news)
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	mustSend(t, c, secret("next"), 2)
	a.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestAfterwardFollowed has two messages come at once: what an application left for the
// time after its answer is not run while another message waits for its own.
func TestAfterwardFollowed(t *testing.T) {
	n := softNetwork(t)
	var sent bytes.Buffer
	for _, device := range []string{"one", "two"} {
		c := n.pskClient(device)
		c.Transport = recorder{&sent}
		if err := c.Send(t.Context(), secret(device)); err != nil {
			t.Fatal(err)
		}
	}
	var idle []string
	err := n.server.ServeStream(t.Context(), "pipe", struct {
		io.Reader
		io.Writer
	}{&sent, io.Discard}, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		w.Afterward(func() error { idle = append(idle, m.Identity); return nil })
		w.Encrypted, w.Authenticated = false, false // there are no keys for an answer
		_, err := io.Copy(io.Discard, m.Body)
		return err
	})
	if err != nil || !slices.Equal(idle, []string{"two"}) {
		t.Errorf("idle after %q, %v", idle, err)
	}
}

// A recorder keeps messages that want no answer.
type recorder struct{ to io.Writer }

func (r recorder) RoundTrip(_ context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("")), write(r.to)
}

// TestPeerAfterward tells a peer's application when its answer was sent: also if that did
// not read its request, and not if the answer is an error.
func TestPeerAfterward(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	asking, answering := connect(t, one, two)
	answers := []error{nil, errors.New("no answer can be made"), nil}
	served, idle := 0, 0
	done := serveAll(answering, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		w.Afterward(func() error { idle++; return nil })
		served++
		return answers[served-1]
	}, len(answers))
	for i, want := range answers {
		r, err := asking.Request(t.Context(), &msl.Request{Encrypted: true, Authenticated: true, Body: msl.BytesBody(random(200_000))})
		if err == nil {
			err = r.Body.Close()
		}
		if (err == nil) != (want == nil) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if err := <-done; err != nil || idle != 2 {
		t.Errorf("%d times, %v", idle, err)
	}
}
