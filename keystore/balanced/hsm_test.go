//go:build cgo && !nopkcs11

package balanced_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// clones make a token with sealing keys, a MAC key and one that signs, and its clone. A
// third one has the same PIN, and other keys with these names.
func clones(t testing.TB) (one, two, other *softhsm.Token) {
	t.Helper()
	one = softhsm.Temp(t)
	other, err := one.Clone("other-" + one.Label[:16])
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []*softhsm.Token{one, other} {
		makeKeys(t, token)
	}
	if two, err = one.Clone("clone-" + one.Label[:16]); err != nil {
		t.Fatal(err)
	}
	return one, two, other
}

func makeKeys(t testing.TB, token *softhsm.Token) {
	t.Helper()
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	labels := map[string]keystore.Algorithm{"mac": keystore.HMACSHA256, "sign": keystore.ECDSAP256}
	for _, role := range keystore.SealingRoles() {
		labels[role.Label("msl")] = role.Algorithm()
	}
	for label, a := range labels {
		if _, err := s.Create(label, a); err != nil {
			t.Fatal(err)
		}
	}
}

// separate makes a module of its own for a token: with one that is loaded once, C_Finalize
// for one token is for the others too.
func separate(t testing.TB, token *softhsm.Token) *hsmtest.Module {
	t.Helper()
	library, err := os.ReadFile(token.Module)
	path := filepath.Join(t.TempDir(), "softhsm.so")
	if err == nil {
		err = os.WriteFile(path, library, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return hsmtest.New(t, path)
}

// in opens a SoftHSM token, by another module if one is given.
func in(token *softhsm.Token, module *hsmtest.Module, c hsm.Config) balanced.Token {
	c.URI, c.PIN = token.URI, token.PIN
	if module != nil {
		c.URI = strings.Replace(c.URI, token.Module, module.Path, 1)
	}
	return balanced.Token{Name: token.Label, Open: func() (keystore.Store, error) { return hsm.Open(c) }}
}

func TestConformance(t *testing.T) {
	soak(t)
	one, two, _ := clones(t)
	t.Run("tokens of one module", func(t *testing.T) {
		keystoretest.TestStore(t, func(t *testing.T) keystore.Store {
			c := hsm.Config{AllowWeak: []string{"imported"}}
			return open(t, balanced.Config{Tokens: []balanced.Token{in(one, nil, c), in(two, nil, c)}})
		})
	})
	t.Run("two modules", func(t *testing.T) {
		a, b := separate(t, one), separate(t, two)
		keystoretest.TestStore(t, func(t *testing.T) keystore.Store {
			c := hsm.Config{AllowWeak: []string{"imported"}}
			return open(t, balanced.Config{Tokens: []balanced.Token{in(one, a, c), in(two, b, c)}})
		})
	})
}
