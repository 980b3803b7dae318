package hsm_test

import (
	"crypto/rand"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A kept is a key that the attacker of docs/custody.md finds in the token, or unwraps
// from the state file.
type kept struct {
	name    string
	key     pkcs11.ObjectHandle
	own     uint   // the mechanism that it is for
	wrapped []byte // of a key that unwraps, something that it opens
	usages  []uint // of what it unwraps
}

// kept makes every kind of key that a server and a device keep.
func (f *field) kept(t *testing.T) []kept {
	t.Helper()
	psk := f.newPSK()
	session, live := f.sealed(t)
	wrapping := f.stored(t, keystore.AESWrap128, psk.wrapping)
	seal := func(label string) pkcs11.ObjectHandle { return f.kek(t, label) }
	all := []kept{
		{name: "session key in use", key: live, own: pkcs11.CKM_AES_CBC},
		{name: "session MAC key in use", key: f.live(t, keystore.HMACSHA256), own: pkcs11.CKM_SHA256_HMAC},
		{name: "sealed session key", key: f.loosest(t, "msl-seal-session", session, pkcs11.CKK_AES), own: pkcs11.CKM_AES_CBC},
		{name: "sealed session MAC key", key: f.loosest(t, "msl-seal-session", f.stored(t, keystore.HMACSHA256, psk.mac), pkcs11.CKK_GENERIC_SECRET), own: pkcs11.CKM_SHA256_HMAC},
		{name: "sealed PSK encryption", key: f.loosest(t, "msl-seal-session", f.stored(t, keystore.AES128CBC, psk.encryption), pkcs11.CKK_AES), own: pkcs11.CKM_AES_CBC},
		{name: "sealed PSK MAC", key: f.loosest(t, "msl-seal-session", f.stored(t, keystore.HMACSHA256Block, keystore.HMACBlock(psk.mac)), pkcs11.CKK_GENERIC_SECRET), own: pkcs11.CKM_SHA256_HMAC},
		{name: "sealed PSK wrapping", key: f.loosest(t, "msl-seal-wrapping", wrapping, pkcs11.CKK_AES), own: ckmKeyWrap},
		{name: "seal-session", key: seal("msl-seal-session"), own: ckmKeyWrap, wrapped: session, usages: encrypts},
		{name: "seal-wrapping", key: seal("msl-seal-wrapping"), own: ckmKeyWrap, wrapped: wrapping, usages: wraps},
		{name: "seal-mac", key: seal("msl-seal-mac"), own: pkcs11.CKM_SHA256_HMAC},
	}
	return append(append(all, f.provisioned(t, psk)...), f.unprotected(t)...)
}

// live is a session key of a server.
func (f *field) live(t *testing.T, a keystore.Algorithm) pkcs11.ObjectHandle {
	t.Helper()
	k, err := f.s.Generate(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	if _, err := f.s.Seal(k, nil); err != nil {
		t.Fatal(err)
	}
	return pkcs11.ObjectHandle(hsm.Handle(k))
}

// loosest unwraps something in the state file with every usage that its sealing key
// lets the attacker ask for.
func (f *field) loosest(t *testing.T, label string, wrapped []byte, keyType uint) pkcs11.ObjectHandle {
	t.Helper()
	usages := append([]uint{pkcs11.CKA_SIGN}, encrypts...)
	if label == "msl-seal-wrapping" {
		usages = wraps
	}
	k, err := f.a.UnwrapKey(f.a.session, keyWrap, f.kek(t, label), wrapped, secret(usages, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.a.DestroyObject(f.a.session, k) })
	return k
}

// provisioned are the token objects of a server and of a device.
func (f *field) provisioned(t *testing.T, psk keySet) []kept {
	t.Helper()
	create := func(label string, a keystore.Algorithm) keystore.Key {
		v, err := f.s.Create(label, a)
		if err != nil {
			t.Fatal(err)
		}
		return v.Key
	}
	provision := func(label string, a keystore.Algorithm, raw []byte) pkcs11.ObjectHandle {
		if _, err := f.s.Provision(label, a, raw); err != nil {
			t.Fatal(err)
		}
		return f.kek(t, label)
	}
	create("issuer-encryption", keystore.AES128CBC)
	create("issuer-mac", keystore.HMACSHA256)
	create("identity", keystore.RSASign2048)
	create("identity-ec", keystore.ECDSAP256)
	unwrap := create("unwrap", keystore.RSAUnwrap2048)
	decrypt := create("decrypt", keystore.RSADecrypt2048)
	recorded := f.record(t, psk.wrapping)
	return []kept{
		{name: "issuer or service encryption", key: f.kek(t, "issuer-encryption"), own: pkcs11.CKM_AES_CBC},
		{name: "issuer or service MAC", key: f.kek(t, "issuer-mac"), own: pkcs11.CKM_SHA256_HMAC},
		{name: "model group", key: provision("group", keystore.AES128CBC, groupKey()), own: pkcs11.CKM_AES_CBC},
		{name: "identity, RSA", key: f.kek(t, "identity"), own: pkcs11.CKM_RSA_PKCS},
		{name: "identity, EC", key: f.kek(t, "identity-ec"), own: pkcs11.CKM_ECDSA},
		{name: "device PSK encryption", key: provision("psk-encryption", keystore.AES128CBC, psk.encryption), own: pkcs11.CKM_AES_CBC},
		{name: "device PSK MAC", key: provision("psk-mac", keystore.HMACSHA256Block, keystore.HMACBlock(psk.mac)), own: pkcs11.CKM_SHA256_HMAC},
		{name: "device PSK wrapping", key: provision("psk-wrapping", keystore.AESUnwrap128, psk.wrapping), own: ckmKeyWrap, wrapped: recorded, usages: encrypts},
		{name: "RSA that unwraps", key: f.kek(t, "unwrap"), own: pkcs11.CKM_RSA_PKCS_OAEP, wrapped: encryptOAEP(t, unwrap, f.key), usages: encrypts},
		{name: "RSA that decrypts", key: f.kek(t, "decrypt"), own: pkcs11.CKM_RSA_PKCS_OAEP, wrapped: encryptOAEP(t, decrypt, f.key), usages: encrypts},
		{name: "AES that reveals", key: provision("psk-revealing", keystore.AESReveal128, psk.wrapping), own: ckmKeyWrap, wrapped: recorded},
	}
}

// groupKey is the key of a model group, whose devices' keys follow from it.
func groupKey() []byte { return []byte("a key of a group") }

// unprotected are keys against which every attack must succeed.
func (f *field) unprotected(t *testing.T) []kept {
	t.Helper()
	yes := func(attributes ...uint) (flags []*pkcs11.Attribute) {
		for _, a := range attributes {
			flags = append(flags, flag(a, true))
		}
		return flags
	}
	usages := []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE}
	loose := append(yes(append(usages, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_MODIFIABLE, ckaCopyable)...), flag(pkcs11.CKA_SENSITIVE, false))
	raw := make([]byte, 16)
	rand.Read(raw)
	aes, err := f.a.CreateObject(f.a.session, append(secret(nil, loose...), pkcs11.NewAttribute(pkcs11.CKA_VALUE, raw)))
	if err != nil {
		t.Fatal(err)
	}
	public := append(yes(pkcs11.CKA_ENCRYPT, pkcs11.CKA_VERIFY, pkcs11.CKA_WRAP), pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, 2048))
	ecPrivate := append(yes(pkcs11.CKA_SIGN, pkcs11.CKA_DERIVE, pkcs11.CKA_EXTRACTABLE), flag(pkcs11.CKA_SENSITIVE, false))
	curve := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, []byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07")), flag(pkcs11.CKA_VERIFY, true)}
	_, ec, err := f.a.GenerateKeyPair(f.a.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}, curve, ecPrivate)
	if err != nil {
		t.Fatal(err)
	}
	private := append(yes(pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_UNWRAP, pkcs11.CKA_EXTRACTABLE), flag(pkcs11.CKA_SENSITIVE, false))
	half, pair, err := f.a.GenerateKeyPair(f.a.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)}, public, private)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := f.a.WrapKey(f.a.session, keyWrap, aes, f.plain(t, flag(pkcs11.CKA_EXTRACTABLE, true)))
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := f.a.WrapKey(f.a.session, oaep, half, f.plain(t, flag(pkcs11.CKA_EXTRACTABLE, true)))
	if err != nil {
		t.Fatal(err)
	}
	return []kept{
		{name: "AES without protection", key: aes, own: ckmKeyWrap, wrapped: wrapped, usages: slices.Clone(encrypts)},
		{name: "RSA without protection", key: pair, own: pkcs11.CKM_RSA_PKCS_OAEP, wrapped: encrypted, usages: slices.Clone(encrypts)},
		{name: "EC without protection", key: ec, own: pkcs11.CKM_ECDSA},
	}
}
