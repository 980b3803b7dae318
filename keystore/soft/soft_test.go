package soft_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

func TestStore(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		keystoretest.TestStore(t, func(*testing.T) keystore.Store { return soft.New() }, keystore.Algorithms()...)
	})
	t.Run("file", func(t *testing.T) {
		keystoretest.TestStore(t, func(t *testing.T) keystore.Store {
			s, err := cheap().Create(filepath.Join(t.TempDir(), "keys"), []byte("passphrase"))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}, keystore.Algorithms()...)
	})
}

func TestProvisionRefuses(t *testing.T) {
	s := soft.New()
	defer s.Close()
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for a, key := range map[keystore.Algorithm]crypto.Signer{
		keystore.ECDSAP384:     curve,
		keystore.RSASign2048:   curve,
		keystore.RSAUnwrap2048: nil,
		keystore.ECDSAP256:     (*ecdsa.PrivateKey)(nil),
		keystore.AES128CBC:     curve,
	} {
		if _, err := s.ProvisionKeyPair("key", a, key); !errors.Is(err, keystore.ErrWrongKey) {
			t.Errorf("%T as %v: %v", key, a, err)
		}
	}
	if _, err := s.Provision("key", keystore.AES128CBC, make([]byte, 17)); !errors.Is(err, keystore.ErrBadData) {
		t.Errorf("17 bytes: %v", err)
	}
	if _, err := s.Provision("key", keystore.ECDSAP256, make([]byte, 32)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("bytes of a key pair: %v", err)
	}
	if _, err := s.Provision("", keystore.AES128CBC, make([]byte, 16)); !errors.Is(err, keystore.ErrWrongKey) {
		t.Errorf("no label: %v", err)
	}
	if _, err := s.Lookup("key"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("something was provisioned: %v", err)
	}
}

func BenchmarkKey(b *testing.B) {
	s := soft.New()
	defer s.Close()
	mac, _ := s.Generate(keystore.HMACSHA256)
	cipher, _ := s.Generate(keystore.AES128CBC)
	iv, data := make([]byte, 16), make([]byte, 1024)
	b.Run("hmac-1KiB", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mac.(keystore.MAC).Sum(data)
		}
	})
	b.Run("encrypt-1KiB", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			cipher.(keystore.Cipher).Encrypt(iv, data)
		}
	})
	ciphertext, _ := cipher.(keystore.Cipher).Encrypt(iv, data)
	b.Run("decrypt-1KiB", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			cipher.(keystore.Cipher).Decrypt(iv, ciphertext)
		}
	})
	k, _ := s.Generate(keystore.HMACSHA256)
	blob, _ := s.Seal(k, nil)
	b.Run("unseal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k, err := s.Unseal(keystore.HMACSHA256, blob, nil)
			if err != nil {
				b.Fatal(err)
			}
			k.Close()
		}
	})
}
