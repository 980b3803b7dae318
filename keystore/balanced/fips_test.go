//go:build cgo && !nopkcs11

package balanced_test

import (
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/fipstest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestFIPS has tokens prove their pairs where Go's own RSA-OAEP with SHA-1 is not permitted.
func TestFIPS(t *testing.T) { fipstest.In(t, "only", "^TestPairs$", "") }

func TestPairs(t *testing.T) {
	one := softhsm.Temp(t)
	makeKeys(t, one)
	s, err := hsm.Open(hsm.Config{URI: one.URI, PIN: one.PIN})
	if err != nil {
		t.Fatal(err)
	}
	pairs := map[string]keystore.Algorithm{"decrypt": keystore.RSADecrypt2048, "unwrap": keystore.RSAUnwrap2048}
	for label, a := range pairs {
		if _, err := s.Create(label, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	two, err := one.Clone("clone-" + one.Label[:16])
	if err != nil {
		t.Fatal(err)
	}
	both := open(t, balanced.Config{Tokens: []balanced.Token{in(one, nil, hsm.Config{}), in(two, nil, hsm.Config{})}})
	for label := range pairs {
		if _, err := both.Lookup(label); err != nil {
			t.Error(err)
		}
	}
}
