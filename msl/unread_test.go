package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// A faultyUnwrapper unwraps session keys whose operations fail.
type faultyUnwrapper struct {
	keystore.Unwrapper
	f *faultyStore
}

func (u faultyUnwrapper) Unwrap(a keystore.Algorithm, wrapped []byte) (keystore.Key, error) {
	return u.f.watched(u.Unwrapper.Unwrap(a, wrapped))
}

// faultyClient is a client whose session keys are of that store.
func (n *network) faultyClient(store *faultyStore) *msl.Client {
	psk := n.pskEntity("device")
	wrapping := faultyUnwrapper{psk.Keys.Wrapping.(keystore.Unwrapper), store}
	return n.client(psk, &keyx.SymmetricOfferer{Keys: entityauth.NewKeySet(psk.Keys.Encryption, psk.Keys.MAC, wrapping)})
}

// TestAnswerUnread has each operation of a client's session keys fail, and tells whether the
// application may have acted.
func TestAnswerUnread(t *testing.T) {
	store := newFaultyStore(t)
	n := newNetwork(t, newStore(t))
	ran := 0
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		ran++
		return echo(ctx, w, m)
	}
	c := n.faultyClient(store)
	ask := func() error {
		r, err := c.Do(t.Context(), &msl.Request{Encrypted: true, Authenticated: true, Body: msl.BytesBody([]byte("hello"))})
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r.Body)
		return errors.Join(err, r.Body.Close())
	}
	for range 2 { // the first one begins the session
		store.watch(nil)
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	operations, unread := store.operations(), 0
	for at := range len(operations) {
		ran = 0
		store.watch(func(n int, op string) error {
			if n < at {
				return nil
			}
			return fmt.Errorf("fault: %w", keystore.ErrUnavailable)
		})
		err := ask()
		if !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, msl.ErrAnswerUnread) != (ran > 0) {
			t.Errorf("operation %d, %s: it ran %d times: %v", at, operations[at], ran, err)
		}
		unread += ran
	}
	if unread < 2 {
		t.Errorf("%d operations after the application", unread)
	}
}

// TestPushUnread has each operation of a client's session keys fail while it reads a message
// that was pushed: that is not an answer, and nobody acted on anything.
func TestPushUnread(t *testing.T) {
	store := newFaultyStore(t)
	n := newNetwork(t, newStore(t))
	c := n.faultyClient(store)
	mustSend(t, c, secret("get tokens"), 2)
	var pushed bytes.Buffer
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		push := w.Push(&pushed, func(p *msl.ResponseWriter) error {
			_, err := p.Write(chunky)
			return err
		})
		return errors.Join(push, echo(ctx, w, m))
	}
	mustSend(t, c, secret("subscribe"), 2)
	read := func() error {
		r, err := c.NewInbox(bytes.NewReader(pushed.Bytes())).Receive(t.Context())
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
		}
		return err
	}
	store.watch(nil)
	if err := read(); err != nil {
		t.Fatal(err)
	}
	for at := range store.operations() {
		store.watch(func(n int, op string) error {
			if n < at {
				return nil
			}
			return fmt.Errorf("fault: %w", keystore.ErrUnavailable)
		})
		if err := read(); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, msl.ErrAnswerUnread) {
			t.Errorf("operation %d: %v", at, err)
		}
	}
}
