package tpm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
)

const otherSRK = 0x81000005

// TestBlob makes and uses keys that their owner keeps, under the storage key that
// the store has and under another one of the same TPM.
func TestBlob(t *testing.T) {
	s, _, _ := newStore(t)
	persistRSA(t, s.Device(), otherSRK)
	other := must[*tpm.Store](t)(s.Device().InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "other"), SRK: otherSRK}))
	defer other.Close()
	_, public, err := s.StorageKey()
	if err != nil {
		t.Fatal(err)
	}
	name := must[*tpm2.TPM2BName](t)(tpm2.ObjectName(public)).Buffer
	for what, c := range map[string]struct {
		store  *tpm.Store
		parent []byte
	}{"its own storage key": {s, nil}, "its own by name": {s, name}, "another one": {other, nil}, "that of another store": {other, name}} {
		ak := must[tpm.Blob](t)(c.store.CreateBlob(c.parent, keystore.RSASign2048, true))
		key := must[tpm.Blob](t)(c.store.CreateBlob(c.parent, keystore.ECDSAP256, false))
		digest := sha256.Sum256([]byte(what))
		signer := must[crypto.Signer](t)(c.store.BlobSigner(key))
		signature := must[[]byte](t)(signer.Sign(rand.Reader, digest[:], crypto.SHA256))
		if !ecdsa.VerifyASN1(signer.Public().(*ecdsa.PublicKey), digest[:], signature) {
			t.Errorf("%s: the signature is wrong", what)
		}
		if err := certify(c.store, ak, key); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := c.store.BlobSigner(ak); !errors.Is(err, keystore.ErrWeakKey) {
			t.Errorf("%s: a restricted key signs anything: %v", what, err)
		}
		key.Parent = []byte("nobody's")
		if err := certify(c.store, ak, key); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("%s: under no storage key: %v", what, err)
		}
	}
	// A key under one storage key does not load under the other.
	key := must[tpm.Blob](t)(s.CreateBlob(nil, keystore.ECDSAP256, false))
	if err := certify(other, key, key); !errors.Is(err, keystore.ErrForeign) {
		t.Error(err)
	}
	if objects, _ := s.Live(); objects > 0 {
		t.Errorf("%d objects are left", objects)
	}
	other.Close()
	if _, err := other.CreateBlob(nil, keystore.ECDSAP256, false); !errors.Is(err, keystore.ErrClosed) {
		t.Error(err)
	}
	signer := must[crypto.Signer](t)(other.BlobSigner(key))
	if _, err := signer.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, keystore.ErrClosed) {
		t.Error(err)
	}
	isEmpty(t, s)
}

// certify lets one key certify another, so that both are loaded.
func certify(s *tpm.Store, ak, key tpm.Blob) error {
	return s.Device().Do(func(t transport.TPM) error {
		return s.UseBlob(t, ak, func(a tpm2.NamedHandle) error {
			return s.UseBlob(t, key, func(k tpm2.NamedHandle) error {
				_, err := tpm2.Certify{
					ObjectHandle: tpm2.AuthHandle{Handle: k.Handle, Name: k.Name, Auth: tpm2.PasswordAuth(nil)},
					SignHandle:   tpm2.AuthHandle{Handle: a.Handle, Name: a.Name, Auth: tpm2.PasswordAuth(nil)},
					InScheme:     tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
				}.Execute(t)
				return err
			})
		})
	})
}

func TestBlobMisuse(t *testing.T) {
	s, _, _ := newStore(t)
	for _, a := range []keystore.Algorithm{keystore.HMACSHA256, keystore.RSADecrypt2048, keystore.AES128CBC, keystore.AESWrap128, 0} {
		if _, err := s.CreateBlob(nil, a, false); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v: %v", a, err)
		}
	}
	var kept transport.TPM
	if err := s.Device().Do(func(t transport.TPM) error { kept = t; return nil }); err != nil {
		t.Fatal(err)
	}
	key := must[tpm.Blob](t)(s.CreateBlob(nil, keystore.ECDSAP256, false))
	err := s.UseBlob(kept, key, func(tpm2.NamedHandle) error { return nil })
	if !errors.Is(err, keystore.ErrWrongKey) {
		t.Errorf("after its turn: %v", err)
	}
	if _, err := s.BlobSigner(tpm.Blob{Algorithm: keystore.ECDSAP256, Public: []byte("no area")}); !errors.Is(err, keystore.ErrBadData) {
		t.Error(err)
	}
}

// TestFindPersistent finds the storage keys, and nothing else.
func TestFindPersistent(t *testing.T) {
	s, _, _ := newStore(t)
	at, public, err := s.StorageKey()
	if err != nil {
		t.Fatal(err)
	}
	name := must[*tpm2.TPM2BName](t)(tpm2.ObjectName(public)).Buffer
	if found, err := s.Device().FindPersistent(name); err != nil || found != at {
		t.Errorf("%#x, %v", found, err)
	}
	if _, err := s.Device().FindPersistent(name[1:]); !errors.Is(err, keystore.ErrNotFound) {
		t.Error(err)
	}
}
