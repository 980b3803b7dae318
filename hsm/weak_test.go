package hsm_test

import (
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

func bigInt(b []byte) *big.Int { return new(big.Int).SetBytes(b) }

// TestWeakSealingKey checks that Open refuses sealing keys with any flaw.
func TestWeakSealingKey(t *testing.T) {
	for _, test := range []struct {
		name, label, weakness string
		a                     keystore.Algorithm
		flaw                  hsm.Flaw
	}{
		{"readable", "msl-seal-session", "unwrap-template", keystore.SealSession256, hsm.Flaw{Unwrapped: []uint{pkcs11.CKA_SENSITIVE}}},
		{"extractable", "msl-seal-session", "unwrap-template", keystore.SealSession256, hsm.Flaw{Unwrapped: []uint{pkcs11.CKA_EXTRACTABLE}}},
		{"wraps", "msl-seal-session", "unwrap-template", keystore.SealSession256, hsm.Flaw{Unwrapped: []uint{pkcs11.CKA_WRAP}}},
		{"unwraps", "msl-seal-wrapping", "unwrap-template", keystore.SealWrapping256, hsm.Flaw{Unwrapped: []uint{pkcs11.CKA_UNWRAP}}},
		{"decrypts", "msl-seal-wrapping", "unwrap-template", keystore.SealWrapping256, hsm.Flaw{Unwrapped: []uint{pkcs11.CKA_DECRYPT}}},
		{"changes", "msl-seal-wrapping", "unwrap-template", keystore.SealWrapping256, hsm.Flaw{Unwrapped: []uint{pkcs11.CKA_MODIFIABLE}}},
		{"copies", "msl-seal-wrapping", "unwrap-template", keystore.SealWrapping256, hsm.Flaw{Unwrapped: []uint{ckaCopyable}}},
		{"kek-extractable", "msl-seal-session", "extractable", keystore.SealSession256, hsm.Flaw{Flags: map[uint]bool{pkcs11.CKA_EXTRACTABLE: true}}},
		{"kek-readable", "msl-seal-mac", "not-sensitive", keystore.SealMAC256, hsm.Flaw{Flags: map[uint]bool{pkcs11.CKA_SENSITIVE: false}}},
		{"kek-modifiable", "msl-seal-session", "modifiable", keystore.SealSession256, hsm.Flaw{Flags: map[uint]bool{pkcs11.CKA_MODIFIABLE: true}}},
		{"kek-copyable", "msl-seal-mac", "copyable", keystore.SealMAC256, hsm.Flaw{Flags: map[uint]bool{ckaCopyable: true}}},
		{"kek-decrypts", "msl-seal-session", "usages", keystore.SealSession256, hsm.Flaw{Flags: map[uint]bool{pkcs11.CKA_DECRYPT: true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			token := softhsm.Temp(t)
			s := open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
			if _, err := s.CreateWeak(test.label, test.a, test.flaw); err != nil {
				t.Fatal(err)
			}
			_, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
			if !errors.Is(err, keystore.ErrWeakKey) || !strings.Contains(err.Error(), test.weakness) {
				t.Errorf("open: %v", err)
			}
			all, err := s.List()
			if err != nil || len(all) != 1 || !slices.ContainsFunc(all[0].Weaknesses, func(w string) bool { return strings.HasPrefix(w, test.weakness+":") }) {
				t.Errorf("list: %+v, %v", all, err)
			}
			allow := []string{test.weakness}
			if test.weakness == "extractable" || test.weakness == "not-sensitive" {
				allow = append(allow, "exposed")
			}
			open(t, hsm.Config{URI: token.URI, PIN: token.PIN, AllowWeak: allow})
		})
	}
}
