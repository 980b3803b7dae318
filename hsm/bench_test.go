package hsm_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
)

func generate[K keystore.Key](b *testing.B, s *hsm.Store, a keystore.Algorithm) K {
	b.Helper()
	k, err := s.Generate(a)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { k.Close() })
	return k.(K)
}

// loop measures op and reports how many PKCS #11 calls it takes.
func loop(b *testing.B, s *hsm.Store, op func() error) {
	b.Helper()
	b.ReportAllocs()
	before := total(s)
	for b.Loop() {
		if err := op(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(total(s)-before)/float64(b.N), "C_calls/op")
}

func total(s *hsm.Store) (n uint64) {
	for _, c := range s.Calls() {
		n += c
	}
	return n
}

func BenchmarkStore(b *testing.B) {
	s, _ := newStore(b)
	for _, size := range []int{256, 1024, 16384} {
		data, iv, room := make([]byte, size), make([]byte, 16), make([]byte, 0, size+16) // used again, as messages do
		mac := generate[keystore.MAC](b, s, keystore.HMACSHA256)
		b.Run(fmt.Sprintf("hmac/%d", size), func(b *testing.B) {
			loop(b, s, func() error { _, err := keystore.AppendSum(mac, room, data); return err })
		})
		k := generate[keystore.Cipher](b, s, keystore.AES128CBC)
		b.Run(fmt.Sprintf("encrypt/%d", size), func(b *testing.B) {
			loop(b, s, func() error { _, err := keystore.AppendEncrypt(k, room, iv, data); return err })
		})
		ciphertext, err := k.Encrypt(iv, data)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("decrypt/%d", size), func(b *testing.B) {
			loop(b, s, func() error { _, err := keystore.AppendDecrypt(k, room, iv, ciphertext); return err })
		})
	}
	b.Run("keys", func(b *testing.B) { benchmarkKeys(b, s) })
	b.Run("pairs", func(b *testing.B) { benchmarkPairs(b, s) })
}

func benchmarkKeys(b *testing.B, s *hsm.Store) {
	b.Run("generate-destroy", func(b *testing.B) {
		loop(b, s, func() error {
			k, err := s.Generate(keystore.AES128CBC)
			if err != nil {
				return err
			}
			return k.Close()
		})
	})
	blob, err := s.Seal(generate[keystore.Key](b, s, keystore.AES128CBC), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("unseal-destroy", func(b *testing.B) {
		loop(b, s, func() error {
			k, err := s.Unseal(keystore.AES128CBC, blob, nil)
			if err != nil {
				return err
			}
			return k.Close()
		})
	})
	wrapper := generate[keystore.Wrapper](b, s, keystore.AESWrap128)
	k := generate[keystore.Key](b, s, keystore.AES128CBC)
	b.Run("wrap", func(b *testing.B) {
		loop(b, s, func() error { _, err := wrapper.Wrap(k); return err })
	})
	shared := make([]byte, 16)
	w, err := s.Import(keystore.AESWrap128, shared)
	if err != nil {
		b.Fatal(err)
	}
	u, err := s.Import(keystore.AESUnwrap128, shared)
	if err != nil {
		b.Fatal(err)
	}
	wrapped, err := w.(keystore.Wrapper).Wrap(k)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("unwrap-destroy", func(b *testing.B) {
		loop(b, s, func() error {
			k, err := u.(keystore.Unwrapper).Unwrap(keystore.AES128CBC, wrapped)
			if err != nil {
				return err
			}
			return k.Close()
		})
	})
}

func benchmarkPairs(b *testing.B, s *hsm.Store) {
	peer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	k := generate[keystore.Key](b, s, keystore.AES128CBC)
	b.Run("oaep-wrap", func(b *testing.B) {
		loop(b, s, func() error { _, err := s.WrapFor(&peer.PublicKey, k); return err })
	})
	digest := sha256.Sum256(nil)
	for _, a := range []keystore.Algorithm{keystore.RSASign2048, keystore.ECDSAP256} {
		signer := generate[keystore.Key](b, s, a).(crypto.Signer)
		b.Run(a.String(), func(b *testing.B) {
			loop(b, s, func() error { _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); return err })
		})
	}
}

// BenchmarkParallel shares one key and the default pool between all goroutines.
func BenchmarkParallel(b *testing.B) {
	s, _ := newStore(b)
	mac := generate[keystore.MAC](b, s, keystore.HMACSHA256)
	data := make([]byte, 1024)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := mac.Sum(data); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
