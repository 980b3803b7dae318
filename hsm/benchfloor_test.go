package hsm_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/floortest"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// BenchmarkFloor compares operations with the calls of the module that they need.
func BenchmarkFloor(b *testing.B) {
	floor := floortest.Start(b)
	s, _ := newStore(b)
	for _, o := range floorOperations(b, s) {
		b.Run(o.sequence, func(b *testing.B) {
			floor.Compare(b, o.sequence, func(n int) time.Duration {
				start := time.Now()
				for range n {
					if err := o.run(); err != nil {
						b.Fatal(err)
					}
				}
				return time.Since(start)
			})
		})
	}
}

type floorOperation struct {
	sequence string // of scripts/floor.c
	run      func() error
}

func floorOperations(b *testing.B, s *hsm.Store) []floorOperation {
	const size = 1024
	data, iv, room, digest := make([]byte, size), make([]byte, 16), make([]byte, 0, size+16), sha256.Sum256(nil)
	mac, k := generate[keystore.MAC](b, s, keystore.HMACSHA256), generate[keystore.Cipher](b, s, keystore.AES128CBC)
	signer := generate[keystore.Key](b, s, keystore.RSASign2048).(crypto.Signer)
	ciphertext, err := k.Encrypt(iv, data)
	if err != nil {
		b.Fatal(err)
	}
	blob, err := s.Seal(generate[keystore.Key](b, s, keystore.AES128CBC), nil)
	if err != nil {
		b.Fatal(err)
	}
	gone := func(k keystore.Key, err error) error {
		if err != nil {
			return err
		}
		return k.Close()
	}
	return []floorOperation{
		{"hmac", func() error { _, err := keystore.AppendSum(mac, room, data); return err }},
		{"encrypt", func() error { _, err := keystore.AppendEncrypt(k, room, iv, data); return err }},
		{"decrypt", func() error { _, err := keystore.AppendDecrypt(k, room, iv, ciphertext); return err }},
		{"sign", func() error { _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); return err }},
		{"generate", func() error { return gone(s.Generate(keystore.AES128CBC)) }},
		{"unseal", func() error { return gone(s.Unseal(keystore.AES128CBC, blob, nil)) }},
	}
}
