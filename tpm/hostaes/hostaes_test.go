package hostaes_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/hostaes"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// open opens a store on a TPM without AES.
func open(t *testing.T, p *tpmtest.TPM, state string) *hostaes.Store {
	t.Helper()
	d, err := tpm.NewDevice(p.Quirky(tpmtest.WithoutEncryptDecrypt), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c := tpm.StoreConfig{State: state}
	chip, err := d.OpenStore(c)
	if errors.Is(err, keystore.ErrNotFound) {
		chip, err = d.InitStore(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := hostaes.New(chip)
	t.Cleanup(func() {
		if objects, _ := s.Live(); objects != 0 {
			t.Errorf("%d keys are left", objects)
		}
		if err := errors.Join(s.Close(), chip.Close(), d.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func importKey(t *testing.T, s *hostaes.Store, a keystore.Algorithm) keystore.Key {
	t.Helper()
	raw := make([]byte, a.Size())
	rand.Read(raw)
	k, err := s.Import(a, raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func encrypt(t *testing.T, k keystore.Key) []byte {
	t.Helper()
	b, err := k.(keystore.Cipher).Encrypt(make([]byte, 16), []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSeal seals keys, and unseals them after the TPM was off.
func TestSeal(t *testing.T) {
	p, state := tpmtest.Start(t), filepath.Join(t.TempDir(), "state")
	s := open(t, p, state)
	context := []byte("context")
	var blob, want []byte
	for _, a := range []keystore.Algorithm{keystore.AES256CBC, keystore.AES128CBC} {
		k := importKey(t, s, a)
		want = encrypt(t, k)
		var err error
		if blob, err = s.Seal(k, context); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Seal(k, context); !errors.Is(err, keystore.ErrLocked) {
			t.Errorf("sealed twice: %v", err)
		}
		if !bytes.Equal(encrypt(t, k), want) {
			t.Error("sealed, it is another key")
		}
		k.Close()
		if _, err := s.Seal(k, context); !errors.Is(err, keystore.ErrClosed) {
			t.Errorf("a closed key: %v", err)
		}
	}
	mac := importKey(t, s, keystore.HMACSHA256)
	tagged, err := s.Seal(mac, context)
	if err != nil {
		t.Fatal(err)
	}
	mac.Close()
	s = open(t, p, state)
	k, err := s.Unseal(keystore.AES128CBC, blob, context)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encrypt(t, k), want) {
		t.Error("unsealed, it is another key")
	}
	if _, err := s.Seal(k, context); !errors.Is(err, keystore.ErrLocked) {
		t.Errorf("an unsealed key was sealed: %v", err)
	}
	k.Close()
	other := open(t, tpmtest.Start(t), filepath.Join(t.TempDir(), "other"))
	flipped := bytes.Clone(blob)
	flipped[len(flipped)/2] ^= 1
	for what, test := range map[string]struct {
		s             *hostaes.Store
		a             keystore.Algorithm
		blob, context []byte
	}{
		"another context":      {s, keystore.AES128CBC, blob, []byte("other")},
		"another algorithm":    {s, keystore.AES256CBC, blob, context},
		"a changed blob":       {s, keystore.AES128CBC, flipped, context},
		"another TPM":          {other, keystore.AES128CBC, blob, context},
		"a key of the TPM":     {s, keystore.AES128CBC, tagged, context},
		"data as a key of its": {s, keystore.HMACSHA256, blob, context},
		"nothing":              {s, keystore.AES128CBC, nil, context},
	} {
		if k, err := test.s.Unseal(test.a, test.blob, test.context); !errors.Is(err, keystore.ErrForeign) {
			t.Errorf("%s: %v, %v", what, k, err)
		}
	}
}

// TestWhere checks which keys are in the TPM.
func TestWhere(t *testing.T) {
	s := open(t, tpmtest.Start(t), filepath.Join(t.TempDir(), "state"))
	if _, err := s.Generate(keystore.AES128CBC); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("generated: %v", err)
	}
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if n, _ := s.Store.Live(); n != 1 {
		t.Errorf("%d keys in the TPM", n)
	}
	if _, err := s.Import(keystore.AES128CBC, make([]byte, 15)); !errors.Is(err, keystore.ErrBadData) {
		t.Errorf("a short key: %v", err)
	}
	a := importKey(t, s, keystore.AES128CBC)
	if n, _ := s.Live(); n != 2 {
		t.Errorf("%d keys in all", n)
	}
	a.Close()
	foreign := importKey(t, open(t, tpmtest.Start(t), filepath.Join(t.TempDir(), "other")), keystore.AES128CBC)
	defer foreign.Close()
	if _, err := s.Seal(foreign, nil); !errors.Is(err, keystore.ErrWrongKey) {
		t.Errorf("a key of another store: %v", err)
	}
}
