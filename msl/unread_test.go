package msl_test

import (
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

// TestAnswerUnread has each operation of a client's session keys fail, and tells whether the application
// may have acted.
func TestAnswerUnread(t *testing.T) {
	store := newFaultyStore(t)
	n := newNetwork(t, newStore(t))
	ran := 0
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		ran++
		return echo(ctx, w, m)
	}
	psk := n.pskEntity("device")
	wrapping := faultyUnwrapper{psk.Keys.Wrapping.(keystore.Unwrapper), store}
	c := n.client(psk, &keyx.SymmetricOfferer{Keys: entityauth.NewKeySet(psk.Keys.Encryption, psk.Keys.MAC, wrapping)})
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
