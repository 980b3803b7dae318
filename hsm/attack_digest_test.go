package hsm_test

import (
	"bytes"
	"crypto/aes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// The salt and the info of the derivation (MSL wiki, "Pre-shared Keys").
const (
	pskSalt = "\x02\x76\x17\x98\x4f\x62\x27\x53\x9a\x63\x0b\x89\x7c\x01\x7d\x69"
	pskInfo = "\x80\x9f\x82\xa7\xad\xdf\x54\x8d\x3e\xa9\xdd\x06\x7f\xf9\xbb\x91"
)

// TestAttackDigest computes the wrapping key of a key set from its other two keys,
// which C_DigestKey hashes although they cannot be read, and opens recorded traffic with
// it. A MAC key that is a whole block prevents that, whatever type it is unwrapped as.
func TestAttackDigest(t *testing.T) {
	f := newField(t)
	psk := f.newPSK()
	recorded := f.record(t, psk.wrapping)
	encryption := f.unwrapStored(t, keystore.AES128CBC, psk.encryption)
	got, err := f.a.digestAttack(encryption, f.unwrapStored(t, keystore.HMACSHA256, psk.mac), recorded)
	f.wins(t, got, err)

	block := keystore.HMACBlock(psk.mac)
	got, err = f.a.digestAttack(encryption, f.unwrapStored(t, keystore.HMACSHA256Block, block), recorded)
	f.fails(t, got, err)
	opened := 0
	for _, keyType := range keyTypes {
		for _, length := range []*pkcs11.Attribute{nil, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32)} {
			template := secret([]uint{pkcs11.CKA_SIGN}, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType))
			if length != nil {
				template = append([]*pkcs11.Attribute{length}, template...)
			}
			k, err := f.a.UnwrapKey(f.a.session, keyWrap, f.kek(t, "msl-seal-session"), f.stored(t, keystore.HMACSHA256Block, block), template)
			if err != nil {
				continue // the key is not of that type
			}
			opened++
			got, err := f.a.digestAttack(encryption, k, recorded)
			f.fails(t, got, err)
			f.a.DestroyObject(f.a.session, k)
		}
	}
	if opened == 0 {
		t.Error("the block unwraps as no type of key at all, so this proves nothing")
	}
}

// keyTypes are those of secret keys that a module may know.
var keyTypes = []uint{
	pkcs11.CKK_GENERIC_SECRET, pkcs11.CKK_AES, pkcs11.CKK_DES, pkcs11.CKK_DES2, pkcs11.CKK_DES3, pkcs11.CKK_RC4,
	pkcs11.CKK_BLOWFISH, pkcs11.CKK_CAMELLIA, pkcs11.CKK_MD5_HMAC, pkcs11.CKK_SHA_1_HMAC, pkcs11.CKK_SHA224_HMAC,
	pkcs11.CKK_SHA256_HMAC, pkcs11.CKK_SHA384_HMAC, pkcs11.CKK_SHA512_HMAC,
}

// A keySet is a pre-shared one whose wrapping key is derived.
type keySet struct{ encryption, mac, wrapping []byte }

func (f *field) newPSK() keySet {
	k := keySet{encryption: make([]byte, 16), mac: make([]byte, 32)}
	rand.Read(k.encryption)
	rand.Read(k.mac)
	k.wrapping = entityauth.DeriveWrappingKey(k.encryption, k.mac)
	return k
}

// unwrapStored seals a key as a server does, takes it out of the state file and
// unwraps it as the sealing key allows.
func (f *field) unwrapStored(t *testing.T, a keystore.Algorithm, raw []byte) pkcs11.ObjectHandle {
	t.Helper()
	keyType, usages := uint(pkcs11.CKK_GENERIC_SECRET), []uint{pkcs11.CKA_SIGN}
	if a == keystore.AES128CBC {
		keyType, usages = pkcs11.CKK_AES, encrypts
	}
	template := secret(usages, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType))
	k, err := f.a.UnwrapKey(f.a.session, keyWrap, f.kek(t, "msl-seal-session"), f.stored(t, a, raw), template)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.a.DestroyObject(f.a.session, k) })
	return k
}

// stored is the wrapped part of a key in the state file.
func (f *field) stored(t *testing.T, a keystore.Algorithm, raw []byte) []byte {
	t.Helper()
	k, err := f.s.Import(a, raw)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	blob, err := f.s.Seal(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		t.Fatal(err)
	}
	return sealed.Wrapped
}

// digestAttack opens recorded traffic with the key that is derived from two others.
func (a *attacker) digestAttack(encryption, mac pkcs11.ObjectHandle, recorded []byte) ([]byte, error) {
	inner, err := a.digest(pkcs11.CKM_SHA256, padded(pskSalt, 0x36), encryption, mac)
	if err != nil {
		return nil, err
	}
	outer := sha256.Sum256(append(padded(pskSalt, 0x5c), inner...))
	expand := hmac.New(sha256.New, outer[:])
	expand.Write([]byte(pskInfo))
	block, err := aes.NewCipher(expand.Sum(nil)[:16])
	if err != nil {
		return nil, err
	}
	return openKeyWrap(recorded, func(b []byte) error { block.Decrypt(b, b); return nil })
}

// padded is a key as HMAC begins with it (RFC 2104 section 2).
func padded(key string, pad byte) []byte {
	block := bytes.Repeat([]byte{pad}, sha256.BlockSize)
	for i := range len(key) {
		block[i] ^= key[i]
	}
	return block
}

// digest hashes known bytes and then keys.
func (a *attacker) digest(mechanism uint, prefix []byte, keys ...pkcs11.ObjectHandle) ([]byte, error) {
	if err := a.DigestInit(a.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}); err != nil {
		return nil, err
	}
	err := a.DigestUpdate(a.session, prefix)
	for _, k := range keys {
		if err == nil {
			err = a.DigestKey(a.session, k)
		}
	}
	sum, final := a.DigestFinal(a.session) // ends the operation, even after an error
	if err != nil {
		return nil, err
	}
	return sum, final
}
