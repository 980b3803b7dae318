package msl_test

import (
	"crypto/rand"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A drawn counts the random bytes that are taken from it.
type drawn struct {
	n   atomic.Int64
	err error
}

func (d *drawn) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	d.n.Add(int64(len(p)))
	return rand.Read(p)
}

// TestRand has both sides draw from readers of their own: what a message takes is an id
// and an initialization vector for each part that is encrypted, whoever's keys encrypt it.
func TestRand(t *testing.T) {
	n := newNetwork(t, soft.New())
	client, ours, theirs := n.pskClient("device"), &drawn{}, &drawn{}
	client.Rand, n.server.Issuer.Rand = ours, theirs
	defer client.Close()
	send := func() error {
		r, err := client.Do(t.Context(), &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody([]byte("data"))})
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r.Body)
		return errors.Join(err, r.Body.Close())
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	const id, iv = 8, 16
	if got := ours.n.Load(); got < id+2*iv { // header, chunk
		t.Errorf("the client drew %d bytes", got)
	}
	if got := theirs.n.Load(); got < id+2*iv { // serial number, session data, chunk
		t.Errorf("the server drew %d bytes", got)
	}
	theirs.err = keystore.ErrUnavailable
	if err := send(); !errors.Is(err, msl.ErrInternalException) {
		t.Errorf("the server's randomness fails: %v", err)
	}
	ours.err = keystore.ErrUnavailable
	if err := send(); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("the client's randomness fails: %v", err)
	}
}
