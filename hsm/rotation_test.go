package hsm_test

import (
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestSealDuringRotation seals with the newest version that has its MAC key, or with the
// one that was chosen, while another program makes versions one key after the other.
func TestSealDuringRotation(t *testing.T) {
	token := softhsm.Temp(t)
	config := hsm.Config{URI: token.URI, PIN: token.PIN}
	s, other := open(t, config), open(t, config)
	seal(t, s)
	sealing := func() uint32 {
		t.Helper()
		k, err := s.Generate(keystore.AES128CBC)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		blob, err := s.Seal(k, nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := other.Unseal(keystore.AES128CBC, blob, nil)
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
		sealed, err := keystore.ParseSealed(blob)
		if err != nil {
			t.Fatal(err)
		}
		return sealed.KEKVersion
	}
	is := func(when string, want uint32) {
		t.Helper()
		if got := sealing(); got != want {
			t.Errorf("%s: sealed with version %d, want %d", when, got, want)
		}
	}
	create := func(role keystore.Role) {
		t.Helper()
		_, err := other.Create(role.Label("msl"), role.Algorithm())
		if err := errors.Join(err, s.Refresh()); err != nil {
			t.Fatal(err)
		}
	}
	is("at first", 1)
	create(keystore.RoleSealSession)
	is("without the MAC key of the version", 1)
	create(keystore.RoleSealMAC)
	is("with it", 2)
	for _, c := range []struct{ chosen, want uint32 }{{1, 1}, {2, 2}, {9, 2}, {0, 2}} {
		if err := s.SealWith(keystore.RoleSealSession.Label("msl"), c.chosen); err != nil {
			t.Fatal(err)
		}
		is("chosen", c.want)
	}
}

// TestSealDestroyed has another program destroy the version that seals, or its MAC key: the
// one that remains seals.
func TestSealDestroyed(t *testing.T) {
	token := softhsm.Temp(t)
	config := hsm.Config{URI: token.URI, PIN: token.PIN}
	s, other := open(t, config), open(t, config)
	seal(t, s)
	for _, role := range []keystore.Role{keystore.RoleSealSession, keystore.RoleSealMAC} {
		for _, both := range []keystore.Role{keystore.RoleSealSession, keystore.RoleSealMAC} {
			if _, err := other.Create(both.Label("msl"), both.Algorithm()); err != nil && !errors.Is(err, keystore.ErrExists) {
				t.Fatal(err)
			}
		}
		if err := s.Refresh(); err != nil {
			t.Fatal(err)
		}
		k, err := s.Generate(keystore.AES128CBC)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if _, err := s.Lookup(keystore.RoleSealSession.Label("msl")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Lookup(keystore.RoleSealMAC.Label("msl")); err != nil {
			t.Fatal(err)
		}
		if err := other.Destroy(role.Label("msl"), 2); err != nil {
			t.Fatal(err)
		}
		blob, err := s.Seal(k, nil)
		if err != nil {
			t.Fatal(err)
		}
		if sealed, err := keystore.ParseSealed(blob); err != nil || sealed.KEKVersion != 1 {
			t.Errorf("%s destroyed: sealed with version %d, %v", role, sealed.KEKVersion, err)
		}
	}
}
