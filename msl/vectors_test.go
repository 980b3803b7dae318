package msl_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/wycheproof"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestVerifyVectors verifies the signatures of Project Wycheproof as those of a peer. MSL
// signs SHA-256 whatever the curve, so a good signature of SHA-384 does not count.
func TestVerifyVectors(t *testing.T) {
	skipWithRace(t)
	for _, file := range []string{"rsa_signature_2048_sha256", "ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha384", "rsa_pss_2048_sha256_mgf1_32"} {
		t.Run(file, func(t *testing.T) {
			f := wycheproof.Read(t, file)
			wycheproof.Ask(t, f, func(g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
				public, err := x509.ParsePKIXPublicKey(g.Public)
				if err != nil {
					t.Fatal(err)
				}
				accepted := verifies(t, msl.VerifyKey{Key: public}, v, v.Signature)
				if f.Algorithm == "RSASSA-PSS" || g.Hash != "SHA-256" {
					if accepted != slices.Contains(v.Flags, "WrongPrimitive") { // which is what MSL signs
						t.Errorf("%v: as a signature of SHA-256 with PKCS #1 v1.5, accepted is %t", v, accepted)
					}
					return wycheproof.NotAsked("%s of %s, which MSL has not", f.Algorithm, g.Hash)
				}
				return wycheproof.Accepted(accepted)
			})
		})
	}
}

// verifies asks an opener, whose every refusal must be the same error.
func verifies(t *testing.T, o msl.Opener, v wycheproof.Vector, signature []byte) bool {
	t.Helper()
	err := o.Verify(v.Message, signature)
	if err != nil && err.Error() != "msl: signature does not match" {
		t.Errorf("%v: %v", v, err)
	}
	return err == nil
}

// TestMACVectors verifies tags. MSL has whole tags only: a tag that is cut is refused
// even if it is the beginning of the right one.
func TestMACVectors(t *testing.T) {
	for file, a := range map[string]keystore.Algorithm{"hmac_sha256": keystore.HMACSHA256, "aes_cmac": keystore.AESCMAC128} {
		t.Run(file, func(t *testing.T) {
			wycheproof.Ask(t, wycheproof.Read(t, file), func(g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
				if len(v.Key) != a.Size() {
					return wycheproof.NotAsked("key of %d bytes", len(v.Key))
				}
				accepted := verifies(t, msl.SymmetricKey{MAC: imported(t, a, v.Key).(keystore.MAC)}, v, v.Tag)
				if g.TagSize == 128 && a == keystore.HMACSHA256 {
					if accepted {
						t.Errorf("%v: accepted a tag of %d bytes", v, len(v.Tag))
					}
					return wycheproof.NotAsked("tag cut to %d bytes (refused)", len(v.Tag))
				}
				return wycheproof.Accepted(accepted)
			})
		})
	}
}

// TestEnvelopeVectors decrypts ciphertexts in an envelope. Whatever is wrong with the
// padding is the same error.
func TestEnvelopeVectors(t *testing.T) {
	wycheproof.Ask(t, wycheproof.Read(t, "aes_cbc_pkcs5"), func(_ wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
		a := map[int]keystore.Algorithm{16: keystore.AES128CBC, 32: keystore.AES256CBC}[len(v.Key)]
		if a == 0 {
			return wycheproof.NotAsked("key of %d bytes", len(v.Key))
		}
		k := msl.SymmetricKey{Encryption: imported(t, a, v.Key).(keystore.Cipher)}
		plain, err := k.Decrypt(msl.Envelope{Version: 1, IV: v.IV, Ciphertext: v.Ciphertext}.Encode())
		if len(v.Ciphertext) == 0 {
			if err != nil || len(plain) > 0 {
				t.Errorf("%v: %x, %v", v, plain, err)
			}
			return wycheproof.NotAsked("empty ciphertext (in MSL an empty plaintext)")
		}
		var failed *msl.Error
		if err != nil && (!errors.As(err, &failed) || failed.Code != msl.ErrCiphertextBadPadding || !errors.Is(err, keystore.ErrBadData)) {
			t.Errorf("%v: %v", v, err)
		}
		return wycheproof.Accepted(err == nil && bytes.Equal(plain, v.Message))
	})
}

// imported is a key of given bytes.
func imported(t *testing.T, a keystore.Algorithm, raw []byte) keystore.Key {
	t.Helper()
	s := soft.New()
	t.Cleanup(func() { s.Close() })
	k, err := s.Import(a, raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
