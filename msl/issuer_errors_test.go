package msl_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
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

// TestIssueFails lets each operation fail that makes a token: there is no token then.
func TestIssueFails(t *testing.T) {
	store := newFaultyStore(t)
	issuer := newNetwork(t, store).server.Issuer
	session, err := issuer.Issue("device", nil, 1, must(msl.GenerateSessionKeys(store)))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Release()
	for name, issue := range map[string]func(*msl.Issuer) error{
		"user id token": func(i *msl.Issuer) error { _, err := i.IssueUser("ada", session.Token, nil); return err },
		"master token": func(i *msl.Issuer) error {
			keys := must(msl.GenerateSessionKeys(store))
			defer keys.Release()
			_, err := i.Issue("device", nil, 1, keys)
			return err
		},
	} {
		if err := issue(&msl.Issuer{Store: store}); !errors.Is(err, msl.ErrInternalException) {
			t.Errorf("%s without keys: %v", name, err)
		}
		if err := issue(&msl.Issuer{Store: store, Keys: issuer.Ring(), Rand: iotest.ErrReader(io.ErrUnexpectedEOF)}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s without random numbers: %v", name, err)
		}
	}
	for n := 0; ; n++ {
		store.watch(func(i int, _ string) error {
			if i == n {
				return errDevice
			}
			return nil
		})
		_, err := issuer.IssueUser("ada", session.Token, nil)
		if len(store.operations()) <= n {
			break
		}
		if !errors.Is(err, errDevice) {
			t.Errorf("operation %d fails: %v", n, err)
		}
	}
}
