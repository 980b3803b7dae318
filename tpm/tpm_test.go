package tpm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// device opens a TPM that goes with the test, and looks whether anything is left
// in it.
func device(t testing.TB, p *tpmtest.TPM) *tpm.Device {
	t.Helper()
	d, err := tpm.NewDevice(p.Dial, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newStore(t testing.TB) (*tpm.Store, *tpmtest.TPM, tpm.StoreConfig) {
	t.Helper()
	p := tpmtest.Start(t)
	c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}
	s, err := device(t, p).InitStore(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, p, c
}

// openStore opens a store that goes with the test.
func openStore(t testing.TB, d *tpm.Device, c tpm.StoreConfig) *tpm.Store {
	t.Helper()
	s, err := d.OpenStore(c)
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

// able are the algorithms that a TPM must have here.
func able() []keystore.Algorithm {
	return []keystore.Algorithm{
		keystore.AES128CBC, keystore.AES256CBC, keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128, keystore.AESReveal128,
		keystore.RSASign2048, keystore.RSADecrypt2048, keystore.ECDSAP256, keystore.ECDSAP384,
	}
}

func TestConformance(t *testing.T) {
	s, _, c := newStore(t)
	keystoretest.TestStore(t, func(t *testing.T) keystore.Store { return openStore(t, s.Device(), c) }, able()...)
	isEmpty(t, s)
}

// TestSizes asks for the larger keys.
func TestSizes(t *testing.T) {
	s, _, _ := newStore(t)
	for _, a := range []keystore.Algorithm{keystore.RSASign4096, keystore.RSADecrypt4096} {
		_, err := s.Generate(a)
		says(t, a.String(), err, errors.ErrUnsupported, a.String())
	}
	if testing.Short() {
		t.Skip("RSA keys of 3072 bits take long")
	}
	k := must[keystore.Key](t)(s.Generate(keystore.RSASign3072))
	defer k.Close()
	sign(t, k)
}

// isEmpty asks the TPM itself what is loaded, when every store but s is closed.
func isEmpty(t *testing.T, s *tpm.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	err := s.Device().Do(func(tp transport.TPM) error {
		for what, first := range map[string]uint32{"objects": 0x80000000} {
			answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(tp)
			if err != nil {
				return err
			}
			handles, err := answer.CapabilityData.Data.Handles()
			if err != nil {
				return err
			}
			if len(handles.Handle) > 0 {
				t.Errorf("%s %v are left in the TPM", what, handles.Handle)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// sign asks for a signature that verifies.
func sign(t testing.TB, k keystore.Key) {
	t.Helper()
	digest := sha256.Sum256([]byte("signed"))
	signature, err := k.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	switch public := k.(crypto.Signer).Public().(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(public, digest[:], signature) {
			t.Error("the signature does not verify")
		}
	case *rsa.PublicKey:
		if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature); err != nil {
			t.Error(err)
		}
	}
}
