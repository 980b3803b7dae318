package tpm_test

import (
	"crypto/fips140"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/fipstest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// TestFIPS adopts a key that decrypts, and wraps one for a TPM, under GODEBUG=fips140=only: the
// first is up to the TPM, the second needs a cipher that it forbids.
func TestFIPS(t *testing.T) { fipstest.In(t, "only", "^(TestAdopt|TestDuplicateForbidden)$", "") }

func TestDuplicateForbidden(t *testing.T) {
	s, _, _ := newStore(t)
	parent := must[*tpm.ImportParent](t)(s.NewImportParent())
	defer parent.Close()
	_, err := tpm.Duplicate(parent.Public(), keystore.HMACSHA256, make([]byte, 32))
	if got := errors.Is(err, errors.ErrUnsupported); got != fips140.Enforced() {
		t.Error(err)
	}
}
