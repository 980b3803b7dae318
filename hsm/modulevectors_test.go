package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/internal/wycheproof"
)

// A bare is the module itself, without the store: what it makes of odd data that the
// store never gives it, or that the store looks at before and after.
type bare struct {
	*attacker
	t *testing.T
}

// asked is how a module is asked one vector.
type asked func(*bare, wycheproof.Group, wycheproof.Vector) wycheproof.Verdict

// knownWrong takes a verdict that is known to be wrong out of those that fail the test:
// docs/hsm.md has a row for it.
func knownWrong(v wycheproof.Vector, d wycheproof.Verdict, why string) wycheproof.Verdict {
	if d == wycheproof.Accepted(v.Result != "valid") {
		return wycheproof.NotAsked("WRONG, as is known: %s", why)
	}
	return d
}

// object makes a session object for one vector.
func (b *bare) object(class, keyType uint, usages []uint, parts ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	t := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType), flag(pkcs11.CKA_TOKEN, false)}
	if class != pkcs11.CKO_PUBLIC_KEY {
		t = append(t, flag(pkcs11.CKA_PRIVATE, true), flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true))
	}
	for _, u := range usages {
		t = append(t, flag(u, true))
	}
	return b.CreateObject(b.session, append(t, parts...))
}

// secret asks with a secret key.
func (b *bare) secret(keyType uint, usages []uint, v wycheproof.Vector, ask func(pkcs11.ObjectHandle) wycheproof.Verdict) wycheproof.Verdict {
	if len(v.Key) == 0 {
		return wycheproof.NotAsked("key of 0 bytes")
	}
	k, err := b.object(pkcs11.CKO_SECRET_KEY, keyType, usages, pkcs11.NewAttribute(pkcs11.CKA_VALUE, []byte(v.Key)))
	if err != nil {
		return wycheproof.NotAsked("key of %d bytes: %v", len(v.Key), err)
	}
	defer b.DestroyObject(b.session, k)
	return ask(k)
}

// decrypts asks whether the data decrypts to the message.
func (b *bare) decrypts(k pkcs11.ObjectHandle, mechanism uint, parameter any, data []byte, v wycheproof.Vector) wycheproof.Verdict {
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, parameter)}
	if err := b.DecryptInit(b.session, m, k); err != nil {
		return wycheproof.NotAsked("C_DecryptInit: %v", err)
	}
	plain, err := b.Decrypt(b.session, data)
	return wycheproof.Accepted(err == nil && bytes.Equal(plain, v.Message))
}

// verifies asks whether the module verifies a signature or tag.
func (b *bare) verifies(k pkcs11.ObjectHandle, mechanism uint, parameter any, data, signature []byte) wycheproof.Verdict {
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, parameter)}
	if err := b.VerifyInit(b.session, m, k); err != nil {
		return wycheproof.NotAsked("C_VerifyInit: %v", err)
	}
	return wycheproof.Accepted(b.Verify(b.session, data, signature) == nil)
}

func (b *bare) cbcPad(_ wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
	return b.secret(pkcs11.CKK_AES, encrypts, v, func(k pkcs11.ObjectHandle) wycheproof.Verdict {
		return b.decrypts(k, pkcs11.CKM_AES_CBC_PAD, []byte(v.IV), v.Ciphertext, v)
	})
}

func (b *bare) gcm(_ wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
	return b.secret(pkcs11.CKK_AES, encrypts, v, func(k pkcs11.ObjectHandle) wycheproof.Verdict {
		if len(v.IV) == 0 {
			return wycheproof.NotAsked("no initialization vector, which miekg/pkcs11 does not take")
		}
		params := pkcs11.NewGCMParams(v.IV, v.AAD, 128)
		defer params.Free()
		d := b.decrypts(k, pkcs11.CKM_AES_GCM, params, append(bytes.Clone(v.Ciphertext), v.Tag...), v)
		if len(v.IV) > 256 {
			return knownWrong(v, d, "no initialization vector of more than 256 bytes")
		}
		return d
	})
}

func (b *bare) hmac(g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
	if len(v.Tag) < 32 {
		return wycheproof.NotAsked("tag cut to %d bytes", len(v.Tag))
	}
	return b.secret(pkcs11.CKK_GENERIC_SECRET, []uint{pkcs11.CKA_VERIFY}, v, func(k pkcs11.ObjectHandle) wycheproof.Verdict {
		return b.verifies(k, pkcs11.CKM_SHA256_HMAC, nil, v.Message, v.Tag)
	})
}

func (b *bare) cmac(_ wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
	return b.secret(pkcs11.CKK_AES, []uint{pkcs11.CKA_VERIFY}, v, func(k pkcs11.ObjectHandle) wycheproof.Verdict {
		return b.verifies(k, pkcs11.CKM_AES_CMAC, nil, v.Message, v.Tag)
	})
}

// unwraps asks whether the ciphertext unwraps to the message.
func unwraps(mechanism uint) asked {
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}
	readable := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true),
	}
	return func(b *bare, _ wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
		if len(v.Ciphertext) == 0 {
			return wycheproof.NotAsked("no data, which miekg/pkcs11 does not take")
		}
		return b.secret(pkcs11.CKK_AES, []uint{pkcs11.CKA_UNWRAP}, v, func(kek pkcs11.ObjectHandle) wycheproof.Verdict {
			k, err := b.UnwrapKey(b.session, m, kek, v.Ciphertext, readable)
			if errors.Is(err, pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID)) {
				return wycheproof.NotAsked("C_UnwrapKey: %v", err)
			}
			if err != nil {
				return wycheproof.Accepted(false)
			}
			defer b.DestroyObject(b.session, k)
			raw, err := b.value(k)
			return wycheproof.Accepted(err == nil && bytes.Equal(raw, v.Message))
		})
	}
}

// private asks with the private key of a group.
func (b *bare) private(g wycheproof.Group, ask func(pkcs11.ObjectHandle) wycheproof.Verdict) wycheproof.Verdict {
	parsed, err := x509.ParsePKCS8PrivateKey(g.Private)
	if err != nil {
		b.t.Fatal(err)
	}
	key := parsed.(*rsa.PrivateKey)
	var parts []*pkcs11.Attribute
	for attribute, n := range map[uint]*big.Int{
		pkcs11.CKA_MODULUS: key.N, pkcs11.CKA_PUBLIC_EXPONENT: big.NewInt(int64(key.E)), pkcs11.CKA_PRIVATE_EXPONENT: key.D,
		pkcs11.CKA_PRIME_1: key.Primes[0], pkcs11.CKA_PRIME_2: key.Primes[1],
		pkcs11.CKA_EXPONENT_1: key.Precomputed.Dp, pkcs11.CKA_EXPONENT_2: key.Precomputed.Dq, pkcs11.CKA_COEFFICIENT: key.Precomputed.Qinv,
	} {
		parts = append(parts, pkcs11.NewAttribute(attribute, n.Bytes()))
	}
	k, err := b.object(pkcs11.CKO_PRIVATE_KEY, pkcs11.CKK_RSA, []uint{pkcs11.CKA_DECRYPT}, parts...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer b.DestroyObject(b.session, k)
	return ask(k)
}

func (b *bare) oaep(g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
	d := b.oaepLabelled(g, v, v.Label)
	if len(v.Label) > 0 {
		return knownWrong(v, d, "the label is ignored, so this does not open")
	}
	return d
}

func (b *bare) oaepLabelled(g wycheproof.Group, v wycheproof.Vector, label []byte) wycheproof.Verdict {
	return b.private(g, func(k pkcs11.ObjectHandle) wycheproof.Verdict {
		return b.decrypts(k, pkcs11.CKM_RSA_PKCS_OAEP, pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, label), v.Ciphertext, v)
	})
}

func (b *bare) pkcs1(g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
	return b.private(g, func(k pkcs11.ObjectHandle) wycheproof.Verdict {
		return b.decrypts(k, pkcs11.CKM_RSA_PKCS, nil, v.Ciphertext, v)
	})
}

// signed asks with the public key of a group: an RSA key the message, an EC key its hash.
func signed(mechanism uint, parameter any) asked {
	return func(b *bare, g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
		public, err := x509.ParsePKIXPublicKey(g.Public)
		if err != nil {
			b.t.Fatal(err)
		}
		key, isEC := public.(*ecdsa.PublicKey)
		if !isEC {
			return b.public(pkcs11.CKK_RSA, publicRSA(public.(*rsa.PublicKey)), func(k pkcs11.ObjectHandle) wycheproof.Verdict {
				return b.verifies(k, mechanism, parameter, v.Message, v.Signature)
			})
		}
		signature, ok := rawSignature(key, v.Signature)
		if !ok {
			return wycheproof.NotAsked("not two numbers of the field in DER, and PKCS #11 has no other signatures")
		}
		digest := map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384}[g.Hash].New()
		digest.Write(v.Message)
		return b.public(pkcs11.CKK_EC, publicEC(b.t, key), func(k pkcs11.ObjectHandle) wycheproof.Verdict {
			return b.verifies(k, mechanism, parameter, digest.Sum(nil), signature)
		})
	}
}

// public asks with a public key.
func (b *bare) public(keyType uint, parts []*pkcs11.Attribute, ask func(pkcs11.ObjectHandle) wycheproof.Verdict) wycheproof.Verdict {
	k, err := b.object(pkcs11.CKO_PUBLIC_KEY, keyType, []uint{pkcs11.CKA_VERIFY}, parts...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer b.DestroyObject(b.session, k)
	return ask(k)
}

func publicRSA(key *rsa.PublicKey) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, key.N.Bytes()),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(key.E)).Bytes()),
	}
}

// rawSignature is r ‖ s of a signature in DER.
func rawSignature(key *ecdsa.PublicKey, der []byte) ([]byte, bool) {
	var n struct{ R, S *big.Int }
	size := key.Params().BitSize
	if rest, err := asn1.Unmarshal(der, &n); err != nil || len(rest) > 0 || n.R.Sign() < 0 || n.S.Sign() < 0 || max(n.R.BitLen(), n.S.BitLen()) > size {
		return nil, false
	}
	if again, err := asn1.Marshal(n); err != nil || !bytes.Equal(again, der) {
		return nil, false
	}
	raw := make([]byte, size/4)
	n.R.FillBytes(raw[:size/8])
	n.S.FillBytes(raw[size/8:])
	return raw, true
}

func publicEC(t *testing.T, key *ecdsa.PublicKey) []*pkcs11.Attribute {
	t.Helper()
	curve := map[int]asn1.ObjectIdentifier{256: {1, 2, 840, 10045, 3, 1, 7}, 384: {1, 3, 132, 0, 34}}[key.Params().BitSize]
	point, err1 := key.Bytes()
	octets, err2 := asn1.Marshal(point)
	params, err3 := asn1.Marshal(curve)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, octets)}
}

// TestModuleVectors asks SoftHSM the vectors of Project Wycheproof, mechanism by
// mechanism, also those that the store has no use for. It takes about a second.
func TestModuleVectors(t *testing.T) {
	_, token := newStore(t)
	a := newAttacker(t, token)
	pss := pkcs11.NewPSSParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, 32)
	for _, test := range []struct {
		mechanism, file string
		ask             asked
	}{
		{"CKM_AES_CBC_PAD", "aes_cbc_pkcs5", (*bare).cbcPad},
		{"CKM_AES_GCM", "aes_gcm", (*bare).gcm},
		{"CKM_SHA256_HMAC", "hmac_sha256", (*bare).hmac},
		{"CKM_AES_CMAC", "aes_cmac", (*bare).cmac},
		{"CKM_AES_KEY_WRAP", "aes_wrap", unwraps(ckmKeyWrap)},
		{"CKM_AES_KEY_WRAP_PAD", "aes_kwp", unwraps(pkcs11.CKM_AES_KEY_WRAP_PAD)},
		{"CKM_RSA_PKCS_OAEP", "rsa_oaep_2048_sha1_mgf1sha1", (*bare).oaep},
		{"CKM_RSA_PKCS", "rsa_pkcs1_2048", (*bare).pkcs1},
		{"CKM_SHA256_RSA_PKCS", "rsa_signature_2048_sha256", signed(pkcs11.CKM_SHA256_RSA_PKCS, nil)},
		{"CKM_SHA256_RSA_PKCS_PSS", "rsa_pss_2048_sha256_mgf1_32", signed(pkcs11.CKM_SHA256_RSA_PKCS_PSS, pss)},
		{"CKM_ECDSA", "ecdsa_secp256r1_sha256", signed(pkcs11.CKM_ECDSA, nil)},
		{"CKM_ECDSA", "ecdsa_secp384r1_sha384", signed(pkcs11.CKM_ECDSA, nil)},
	} {
		t.Run(test.mechanism+" "+test.file, func(t *testing.T) {
			b := &bare{a, t}
			wycheproof.Ask(t, wycheproof.Read(t, test.file), func(g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict { return test.ask(b, g, v) })
		})
	}
}

// TestModuleLabel asks SoftHSM to decrypt RSA-OAEP with another label than that of the
// ciphertext, which must refuse all.
func TestModuleLabel(t *testing.T) {
	_, token := newStore(t)
	b := &bare{newAttacker(t, token), t}
	f := wycheproof.Read(t, "rsa_oaep_2048_sha1_mgf1sha1")
	for _, g := range f.Groups {
		for i := range g.Tests {
			g.Tests[i].Result = "invalid"
		}
	}
	wycheproof.Ask(t, f, func(g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
		return knownWrong(v, b.oaepLabelled(g, v, []byte("another")), "the label is ignored, so this opens")
	})
}
