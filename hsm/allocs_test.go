package hsm_test

import (
	"bytes"
	"crypto/rsa"
	"math/big"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// An operation that works makes its result, and nothing that only a failure would need.
func TestAllocations(t *testing.T) {
	token := softhsm.Temp(t)
	s := open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	peer := &rsa.PublicKey{N: new(big.Int).SetBytes(bytes.Repeat([]byte{0xfb}, 256)), E: 65537}
	tag := make([]byte, 0, 32)
	for name, op := range map[string]struct {
		most float64
		run  func() error
	}{
		"MAC":            {0, func() error { _, err := keystore.AppendSum(k.(keystore.MAC), tag, nil); return err }},
		"wrap for peers": {6, func() error { _, err := s.WrapFor(peer, k); return err }},
	} {
		if err := op.run(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := testing.AllocsPerRun(20, func() { _ = op.run() }); n > op.most {
			t.Errorf("%s: %v allocations, want at most %v", name, n, op.most)
		}
	}
}
