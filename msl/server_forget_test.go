package msl_test

import (
	"context"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// sendAndRead sends a message, and reads the answer.
func sendAndRead(t *testing.T, client *msl.Client) {
	t.Helper()
	r, err := client.Do(t.Context(), &msl.Request{Encrypted: true, Authenticated: true})
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, r.Body)
	r.Body.Close()
}

// Forgotten sessions are opened again, once, and not by a message that was under way.
func TestServerForget(t *testing.T) {
	n := newNetwork(t, soft.New())
	client := n.pskClient("device")
	send := func() { t.Helper(); sendAndRead(t, client) }
	misses := func() uint64 { return n.server.Stats().Misses }
	send()
	send()
	known := misses()
	send()
	if misses() != known {
		t.Error("a remembered session is opened again")
	}
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		n.server.Forget()
		return echo(ctx, w, m)
	}
	send()
	n.handler = echo
	send()
	if misses() != known+1 {
		t.Errorf("a forgotten session was opened %d times", misses()-known)
	}
	send()
	if misses() != known+1 {
		t.Error("a session that was opened again is not remembered")
	}
}

// A session that is issued after others were forgotten is remembered.
func TestServerForgetBefore(t *testing.T) {
	n := newNetwork(t, soft.New())
	client := n.pskClient("device")
	n.server.Forget()
	for range 2 {
		sendAndRead(t, client)
	}
	if got := n.server.Stats(); got.Hits == 0 || got.Misses != 0 {
		t.Errorf("%d messages found their session, %d did not", got.Hits, got.Misses)
	}
}
