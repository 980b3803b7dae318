package tpm_test

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/mixed"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestRandom listens while the TPM returns random bytes, changes one, and has the TPM
// refuse.
func TestRandom(t *testing.T) {
	p := tpmtest.Start(t)
	b, refuse := &bus{}, false
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if refuse && tpmtest.Command(command) == uint32(tpm2.TPMCCGetRandom) {
			return tpmtest.Refuse(uint32(tpm2.TPMRCFailure)), nil
		}
		return b.quirk(command, send)
	}), time.Minute))
	defer d.Close()
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}))
	defer s.Close()
	got := make([]byte, 100)
	if err := s.Random(got); err != nil {
		t.Fatal(err)
	}
	for at := range got[16:] {
		if bytes.Contains(b.all, got[at:at+16]) {
			t.Fatal("random bytes passed in clear")
		}
	}
	b.flip(uint32(tpm2.TPMCCGetRandom), 20)
	says(t, "a changed answer", s.Random(got), keystore.ErrUnavailable, "changed on the way")
	refuse = true
	says(t, "a refusal", s.Random(got), keystore.ErrUnavailable, "TPM2_GetRandom: TPM_RC_FAILURE")
	r := mixed.New(s, 0)
	defer r.Close()
	_, err := r.Read(got)
	says(t, "a refusal, mixed", err, keystore.ErrUnavailable, "TPM_RC_FAILURE")
	refuse = false
	if _, err := r.Read(got); err != nil {
		t.Error(err)
	}
}
