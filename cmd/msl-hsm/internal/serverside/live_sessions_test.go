package serverside

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// RoundTrip carries a message to the current generation.
func (l *Live) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	return inMemory{l.Service().MSL}.RoundTrip(ctx, write)
}

// device returns a device with pre-shared keys that the server knows.
func device(t *testing.T, l *Live, c *config.Config) *msl.Client {
	t.Helper()
	store := soft.New()
	psk := entityauth.NewPSKFile("device", false)
	defer psk.Wipe()
	sealed, err := keys.SealPSK(psk, l.Service().Store)
	if err == nil {
		err = l.Service().State.AddEntity(state.EntityRecord{Identity: psk.Identity, Scheme: "PSK", PSK: sealed})
	}
	if err != nil {
		t.Fatal(err)
	}
	set, err := psk.KeySet(store, true)
	if err != nil {
		t.Fatal(err)
	}
	own := &entityauth.PSKEntity{Identity: psk.Identity, Keys: set}
	offer, err := offerOf(c, "SYMMETRIC_WRAPPED", store, own)
	if err != nil {
		t.Fatal(err)
	}
	client := &msl.Client{Local: own, Peers: []msl.EntityScheme{itself{l.Service().MSL.Local}}, KeyExchanges: []msl.Offerer{offer}, Transport: l}
	t.Cleanup(func() { client.Close(); store.Close() })
	return client
}

// remake destroys the newest versions of the keys that make tokens, and makes others under the same
// number.
func remake(t *testing.T, c *config.Config, store keys.Store, number uint32) {
	t.Helper()
	destroy(t, c, store, number)
	for _, role := range tokenRoles {
		if v, err := store.Create(role.Label(c.Keystore.Prefix), role.Algorithm()); err != nil || v.Number != number {
			t.Fatal(v.Number, err)
		}
	}
}

var tokenRoles = []keystore.Role{keystore.RoleIssuerEncryption, keystore.RoleIssuerMAC}

// destroy destroys a version of them, if it is there.
func destroy(t *testing.T, c *config.Config, store keys.Store, number uint32) {
	t.Helper()
	for _, role := range tokenRoles {
		if err := store.Destroy(role.Label(c.Keystore.Prefix), number); err != nil && !errors.Is(err, keystore.ErrNotFound) {
			t.Fatal(err)
		}
	}
}

// TestSessionsAfterReload reloads between messages of a session. It stays remembered while the
// keys are the same, and not if others have their numbers, even if another server of the state has
// recorded them.
func TestSessionsAfterReload(t *testing.T) {
	l, c := begun(t)
	l.Service().access = accessLog{log: l.Log}
	l.pair(l.now.Load())
	l.Read = func() (*config.Config, error) { again := *c; return &again, nil }
	client := device(t, l, c)
	reload := func() {
		t.Helper()
		if _, err := l.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	misses := func() uint64 { return l.Service().MSL.Stats().Misses }
	for range 3 {
		if err := sendOnce(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		reload()
	}
	if err := sendOnce(t.Context(), client); err != nil || misses() != 0 {
		t.Errorf("after reloads: %v, the session was opened %d times", err, misses())
	}
	store := l.Service().Store
	rotate(t, c, store, true)
	reload()
	remake(t, c, store, 2)
	if _, _, err := l.Service().State.Pair(c, store); err != nil {
		t.Fatal(err)
	}
	check := func(remade string) {
		t.Helper()
		reload()
		known := misses()
		if err := sendOnce(t.Context(), client); err != nil || misses() == known {
			t.Errorf("with another key in place of %s: %v, and a session of before is used", remade, err)
		}
	}
	check("the newest, which was recorded")
	remake(t, c, store, 2)
	destroy(t, c, store, 1)
	check("the only one")
}
