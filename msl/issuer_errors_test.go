package msl_test

import (
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// Two keys that cannot be sealed are one error, of one line.
func TestSealErrorIsOneLine(t *testing.T) {
	store := newFaultyStore(t)
	issuer := newNetwork(t, store).server.Issuer
	store.watch(func(_ int, op string) error {
		if op == "Seal" {
			return errDevice
		}
		return nil
	})
	keys := must(msl.GenerateSessionKeys(store))
	defer keys.Release()
	if _, err := issuer.Issue("device", nil, 1, keys); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("error: %q", err)
	}
}

// TestAcceptedFor has lifetimes whose sum is more than a time.Duration holds.
func TestAcceptedFor(t *testing.T) {
	const most = 1<<63 - 1
	for _, c := range []struct{ life, renew, want time.Duration }{
		{0, 0, 31 * 24 * time.Hour},
		{time.Hour, time.Minute, 61 * time.Minute},
		{most - 1, 0, most},
		{most, most, most},
	} {
		i := &msl.Issuer{Lifetime: c.life, RenewExpired: c.renew}
		if got := i.AcceptedFor(); got != c.want {
			t.Errorf("%v and %v: %v, want %v", c.life, c.renew, got, c.want)
		}
	}
}
