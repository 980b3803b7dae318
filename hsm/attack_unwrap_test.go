package hsm_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/oaeptrial"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestAttackTwoHops makes a sealed wrapping key open recorded traffic.
func TestAttackTwoHops(t *testing.T) {
	f := newField(t)
	psk := make([]byte, 16)
	rand.Read(psk)
	recorded := f.record(t, psk)
	stored := f.sealWrapping(t, psk)
	kek := f.kek(t, "msl-seal-wrapping")
	with := func(kek pkcs11.ObjectHandle, wrapped []byte, changes ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
		return f.a.UnwrapKey(f.a.session, keyWrap, kek, wrapped, secret(wraps, changes...))
	}
	for _, test := range []struct {
		name    string
		hop     func(kek pkcs11.ObjectHandle, wrapped []byte) (pkcs11.ObjectHandle, error)
		missing []uint
	}{
		{"unseal-with-unwrap", func(kek pkcs11.ObjectHandle, wrapped []byte) (pkcs11.ObjectHandle, error) {
			return with(kek, wrapped, flag(pkcs11.CKA_UNWRAP, true))
		}, []uint{pkcs11.CKA_UNWRAP}},
		{"unseal-with-decrypt", func(kek pkcs11.ObjectHandle, wrapped []byte) (pkcs11.ObjectHandle, error) {
			return with(kek, wrapped, flag(pkcs11.CKA_DECRYPT, true))
		}, []uint{pkcs11.CKA_DECRYPT}},
		{"add-unwrap", f.then(with, f.a.add(pkcs11.CKA_UNWRAP), flag(pkcs11.CKA_MODIFIABLE, true)), []uint{pkcs11.CKA_MODIFIABLE}},
		{"add-decrypt", f.then(with, f.a.add(pkcs11.CKA_DECRYPT), flag(pkcs11.CKA_MODIFIABLE, true)), []uint{pkcs11.CKA_MODIFIABLE}},
		{"copy-with-unwrap", f.then(with, f.a.copyWith(pkcs11.CKA_UNWRAP), flag(ckaCopyable, true), flag(pkcs11.CKA_MODIFIABLE, true)), []uint{ckaCopyable, pkcs11.CKA_MODIFIABLE}},
		{"copy-with-decrypt", f.then(with, f.a.copyWith(pkcs11.CKA_DECRYPT), flag(ckaCopyable, true), flag(pkcs11.CKA_MODIFIABLE, true)), []uint{ckaCopyable, pkcs11.CKA_MODIFIABLE}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := f.hop(test.hop, kek, stored, recorded)
			f.fails(t, got, err)
			weak, theirs := f.weakKEK(t, keystore.SealWrapping256, psk, hsm.Flaw{Unwrapped: test.missing})
			got, err = f.hop(test.hop, weak, theirs, recorded)
			f.wins(t, got, err)
		})
	}
}

// record is key response data as it went over the wire: the session key under
// the device's wrapping key.
func (f *field) record(t *testing.T, psk []byte) []byte {
	t.Helper()
	w, err := f.s.Import(keystore.AESWrap128, psk)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	k, err := f.s.Import(keystore.AES128CBC, f.key)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	recorded, err := w.(keystore.Wrapper).Wrap(k)
	if err != nil {
		t.Fatal(err)
	}
	return recorded
}

// sealWrapping is the device's wrapping key in the server's state file.
func (f *field) sealWrapping(t *testing.T, psk []byte) []byte {
	t.Helper()
	w, err := f.s.Import(keystore.AESWrap128, psk)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	blob, err := f.s.Seal(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		t.Fatal(err)
	}
	return sealed.Wrapped
}

func (f *field) hop(hop func(kek pkcs11.ObjectHandle, wrapped []byte) (pkcs11.ObjectHandle, error), kek pkcs11.ObjectHandle, stored, recorded []byte) ([]byte, error) {
	wrapping, err := hop(kek, stored)
	if err != nil {
		return nil, err
	}
	defer f.a.DestroyObject(f.a.session, wrapping)
	return f.a.open(wrapping, recorded)
}

// then is a hop in two steps: unseal normally, or with the change that the second step
// needs, and then change the unsealed key.
func (f *field) then(unwrap func(pkcs11.ObjectHandle, []byte, ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error), second func(pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error), changes ...*pkcs11.Attribute) func(pkcs11.ObjectHandle, []byte) (pkcs11.ObjectHandle, error) {
	return func(kek pkcs11.ObjectHandle, wrapped []byte) (pkcs11.ObjectHandle, error) {
		k, err1 := unwrap(kek, wrapped, changes...)
		if err1 == nil {
			return second(k)
		}
		k, err2 := unwrap(kek, wrapped)
		if err2 != nil {
			return 0, errors.Join(err1, err2)
		}
		return second(k)
	}
}

func (a *attacker) add(usage uint) func(pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	return func(k pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
		return k, a.SetAttributeValue(a.session, k, []*pkcs11.Attribute{flag(usage, true)})
	}
}

func (a *attacker) copyWith(usage uint) func(pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	return func(k pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
		return a.CopyObject(a.session, k, []*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, false), flag(usage, true)})
	}
}

// TestAttackUnwrappingKeys turns a client's provisioned keys on recorded traffic.
func TestAttackUnwrappingKeys(t *testing.T) {
	f := newField(t)
	psk := make([]byte, 16)
	rand.Read(psk)
	if _, err := f.s.Provision("psk", keystore.AESUnwrap128, psk); err != nil {
		t.Fatal(err)
	}
	rsaKey, err := f.s.Create("rsa", keystore.RSAUnwrap2048)
	if err != nil {
		t.Fatal(err)
	}
	readable, extractable := flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true)
	for _, client := range []struct {
		name      string
		mechanism []*pkcs11.Mechanism
		ours      pkcs11.ObjectHandle
		recorded  []byte
		a         keystore.Algorithm
	}{
		{"psk", keyWrap, f.kek(t, "psk"), f.record(t, psk), keystore.AESUnwrap128},
		{"rsa", oaep, f.kek(t, "rsa"), encryptOAEP(t, rsaKey.Key, f.key), keystore.RSAUnwrap2048},
	} {
		for _, test := range []struct {
			name   string
			attack func(k pkcs11.ObjectHandle, recorded []byte) ([]byte, error)
			flaw   hsm.Flaw
		}{
			{"unwrap-readable", func(k pkcs11.ObjectHandle, recorded []byte) ([]byte, error) {
				return f.a.unwrapped(client.mechanism, k, recorded, secret(encrypts, readable, extractable))
			}, hsm.Flaw{Unwrapped: []uint{pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE}}},
			{"unwrap-extractable", func(k pkcs11.ObjectHandle, recorded []byte) ([]byte, error) {
				return f.a.unwrapped(client.mechanism, k, recorded, secret(encrypts, extractable))
			}, hsm.Flaw{Unwrapped: []uint{pkcs11.CKA_EXTRACTABLE}}},
			{"add-decrypt", f.changed(client.mechanism, f.a.add(pkcs11.CKA_DECRYPT)), hsm.Flaw{Flags: map[uint]bool{pkcs11.CKA_MODIFIABLE: true}}},
			{"copy-with-decrypt", f.changed(client.mechanism, f.a.copyWith(pkcs11.CKA_DECRYPT)), hsm.Flaw{Flags: map[uint]bool{ckaCopyable: true, pkcs11.CKA_MODIFIABLE: true}}},
		} {
			t.Run(client.name+"/"+test.name, func(t *testing.T) {
				got, err := test.attack(client.ours, client.recorded)
				f.fails(t, got, err)
				weak, recorded := f.weakClient(t, client.a, test.name, test.flaw)
				got, err = test.attack(weak, recorded)
				f.wins(t, got, err)
			})
		}
	}
}

// changed opens recorded traffic after a change to the unwrapping key.
func (f *field) changed(mechanism []*pkcs11.Mechanism, change func(pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error)) func(pkcs11.ObjectHandle, []byte) ([]byte, error) {
	return func(k pkcs11.ObjectHandle, recorded []byte) ([]byte, error) {
		k, err := change(k)
		if err != nil {
			return nil, err
		}
		if mechanism[0].Mechanism == ckmKeyWrap {
			return f.a.open(k, recorded)
		}
		if err := f.a.DecryptInit(f.a.session, mechanism, k); err != nil {
			return nil, err
		}
		return f.a.Decrypt(f.a.session, recorded)
	}
}

// weakClient makes a client's key with a flaw, and traffic recorded for it.
func (f *field) weakClient(t *testing.T, a keystore.Algorithm, name string, flaw hsm.Flaw) (pkcs11.ObjectHandle, []byte) {
	t.Helper()
	if a == keystore.AESUnwrap128 {
		// To record something for it, the weak key may wrap too.
		if flaw.Flags == nil {
			flaw.Flags = map[uint]bool{}
		}
		flaw.Flags[pkcs11.CKA_WRAP] = true
	}
	k := f.weak(t, name+a.String(), a, flaw)
	return k, f.recordFor(t, k, a)
}

// recordFor returns the wire traffic to the owner of a key.
func (f *field) recordFor(t *testing.T, k pkcs11.ObjectHandle, a keystore.Algorithm) []byte {
	t.Helper()
	if a == keystore.AESUnwrap128 {
		wrapped, err := f.a.WrapKey(f.a.session, keyWrap, k, f.plain(t, flag(pkcs11.CKA_EXTRACTABLE, true)))
		if err != nil {
			t.Fatal(err)
		}
		return wrapped
	}
	n, err := f.a.GetAttributeValue(f.a.session, k, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil)})
	if err != nil {
		t.Fatal(err)
	}
	public := &rsa.PublicKey{N: bigInt(n[0].Value), E: 65537}
	wrapped, err := oaeptrial.Encrypt(public, f.key)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

func encryptOAEP(t *testing.T, k keystore.Key, raw []byte) []byte {
	t.Helper()
	public := k.(interface{ Public() crypto.PublicKey }).Public().(*rsa.PublicKey)
	wrapped, err := oaeptrial.Encrypt(public, raw)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}
