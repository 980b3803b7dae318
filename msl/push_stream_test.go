package msl_test

import (
	"context"
	"errors"
	"fmt"
	"io"
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
