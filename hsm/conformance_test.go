package hsm_test

import (
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// open opens a store that goes with the test.
func open(t testing.TB, c hsm.Config) *hsm.Store {
	t.Helper()
	s, err := hsm.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// seal makes the sealing keys of a new token.
func seal(t testing.TB, s *hsm.Store) {
	t.Helper()
	for label, a := range map[string]keystore.Algorithm{
		"msl-seal-session":  keystore.SealSession256,
		"msl-seal-wrapping": keystore.SealWrapping256,
		"msl-seal-mac":      keystore.SealMAC256,
	} {
		if _, err := s.Create(label, a); err != nil {
			t.Fatal(err)
		}
	}
}

// newStore opens a throwaway token with sealing keys.
func newStore(t testing.TB) (*hsm.Store, *softhsm.Token) {
	t.Helper()
	token := softhsm.Temp(t)
	s := open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
	seal(t, s)
	return s, token
}

func TestConformance(t *testing.T) {
	_, token := newStore(t)
	// Not required of wrapping keys: a provisioned key does not unwrap them.
	required := slices.DeleteFunc(keystore.Algorithms(), func(a keystore.Algorithm) bool { return a == keystore.AESWrap128 })
	keystoretest.TestStore(t, func(t *testing.T) keystore.Store {
		// The vectors come with private keys.
		return open(t, hsm.Config{URI: token.URI, PIN: token.PIN, AllowWeak: []string{"imported"}})
	}, required...)
}
