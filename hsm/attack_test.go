package hsm_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// A field is where the attacker works: what a server and a client keep in their
// tokens and files, and what went over the wire between them.
type field struct {
	s     *hsm.Store
	token *softhsm.Token
	a     *attacker
	key   []byte // the session key that all attacks are after
}

func newField(t *testing.T) *field {
	s, token := newStore(t)
	f := &field{s, token, newAttacker(t, token), make([]byte, 16)}
	rand.Read(f.key)
	return f
}

// sealed is the session key in a state file: its wrapped part, and the object
// that the server uses.
func (f *field) sealed(t *testing.T) (wrapped []byte, live pkcs11.ObjectHandle) {
	t.Helper()
	k, err := f.s.Import(keystore.AES128CBC, f.key)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := f.s.Seal(k, []byte("device"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		t.Fatal(err)
	}
	return sealed.Wrapped, pkcs11.ObjectHandle(hsm.Handle(k))
}

func (f *field) kek(t *testing.T, label string) pkcs11.ObjectHandle {
	t.Helper()
	h, err := f.s.KEKHandle(label)
	if err != nil {
		t.Fatal(err)
	}
	return pkcs11.ObjectHandle(h)
}

func (f *field) weak(t *testing.T, label string, a keystore.Algorithm, flaw hsm.Flaw) pkcs11.ObjectHandle {
	t.Helper()
	h, err := f.s.CreateWeak(label, a, flaw)
	if err != nil {
		t.Fatal(err)
	}
	if a.Sealing() {
		return pkcs11.ObjectHandle(h) // Open's refusal is TestWeakSealingKey
	}
	if _, err := f.s.Lookup(label); !errors.Is(err, keystore.ErrWeakKey) {
		t.Errorf("the store takes the weak key: %v", err)
	}
	return pkcs11.ObjectHandle(h)
}

// weakKEK makes a sealing key with a flaw, and wraps raw under it as a server
// would.
func (f *field) weakKEK(t *testing.T, a keystore.Algorithm, raw []byte, flaw hsm.Flaw) (kek pkcs11.ObjectHandle, wrapped []byte) {
	t.Helper()
	kek = f.weak(t, "weak-"+a.String(), a, flaw)
	t.Cleanup(func() { f.a.DestroyObject(f.a.session, kek) })
	template := append(secret(encrypts, flag(pkcs11.CKA_EXTRACTABLE, true)), pkcs11.NewAttribute(pkcs11.CKA_VALUE, raw))
	k, err := f.a.CreateObject(f.a.session, template)
	if err != nil {
		t.Fatal(err)
	}
	defer f.a.DestroyObject(f.a.session, k)
	wrapped, err = f.a.WrapKey(f.a.session, keyWrap, kek, k)
	if err != nil {
		t.Fatal(err)
	}
	return kek, wrapped
}

// plain makes a session object without a protection.
func (f *field) plain(t *testing.T, changes ...*pkcs11.Attribute) pkcs11.ObjectHandle {
	t.Helper()
	template := append(secret(encrypts, changes...), pkcs11.NewAttribute(pkcs11.CKA_VALUE, f.key))
	k, err := f.a.CreateObject(f.a.session, template)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.a.DestroyObject(f.a.session, k) })
	return k
}

// fails and wins check whether an attack got the session key.
func (f *field) fails(t *testing.T, got []byte, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("the attack got %d bytes, the session key: %t", len(got), bytes.Equal(got, f.key))
	}
}

func (f *field) wins(t *testing.T, got []byte, err error) {
	t.Helper()
	if err != nil || !bytes.Equal(got, f.key) {
		t.Errorf("the attack fails against a key without the protection, so it proves nothing: %v", err)
	}
}

// TestAttackObjects attacks the objects that a server has in use.
func TestAttackObjects(t *testing.T) {
	f := newField(t)
	readable, extractable := flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true)
	copyable, modifiable := flag(ckaCopyable, true), flag(pkcs11.CKA_MODIFIABLE, true)
	_, session := f.sealed(t)
	unsealed := f.unsealed(t)
	objects := map[string]pkcs11.ObjectHandle{
		"sealed": session, "unsealed": unsealed,
		"kek-session": f.kek(t, "msl-seal-session"), "kek-wrapping": f.kek(t, "msl-seal-wrapping"), "kek-mac": f.kek(t, "msl-seal-mac"),
	}
	for _, test := range []struct {
		name   string
		attack func(k pkcs11.ObjectHandle) ([]byte, error)
		weak   []*pkcs11.Attribute
	}{
		{"read", f.a.value, []*pkcs11.Attribute{readable, extractable}},
		{"wrap", f.a.carry, []*pkcs11.Attribute{extractable}},
		{"wrap-under-kek", func(k pkcs11.ObjectHandle) ([]byte, error) {
			_, err := f.a.WrapKey(f.a.session, keyWrap, objects["kek-session"], k)
			return f.key, err
		}, []*pkcs11.Attribute{extractable}},
		{"copy-extractable", func(k pkcs11.ObjectHandle) ([]byte, error) { return f.a.copyOf(k, extractable) }, []*pkcs11.Attribute{copyable, modifiable, extractable}},
		{"copy-readable", func(k pkcs11.ObjectHandle) ([]byte, error) { return f.a.copyOf(k, readable) }, []*pkcs11.Attribute{copyable, modifiable, readable, extractable}},
		{"set-extractable", func(k pkcs11.ObjectHandle) ([]byte, error) { return f.a.set(k, extractable) }, []*pkcs11.Attribute{modifiable, extractable}},
		{"set-readable", func(k pkcs11.ObjectHandle) ([]byte, error) { return f.a.set(k, readable) }, []*pkcs11.Attribute{modifiable, readable, extractable}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, k := range objects {
				t.Run(name, func(t *testing.T) {
					got, err := test.attack(k)
					f.fails(t, got, err)
				})
			}
			got, err := test.attack(f.plain(t, test.weak...))
			f.wins(t, got, err)
		})
	}
}

// unsealed is a key that came back from a state file.
func (f *field) unsealed(t *testing.T) pkcs11.ObjectHandle {
	t.Helper()
	k, err := f.s.Import(keystore.AES128CBC, f.key)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	blob, err := f.s.Seal(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := f.s.Unseal(keystore.AES128CBC, blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return pkcs11.ObjectHandle(hsm.Handle(u))
}

// TestAttackSealed unwraps the keys of the state file in other ways.
func TestAttackSealed(t *testing.T) {
	f := newField(t)
	wrapped, _ := f.sealed(t)
	kek := f.kek(t, "msl-seal-session")
	for _, test := range []struct {
		name   string
		attack func(kek pkcs11.ObjectHandle, wrapped []byte) ([]byte, error)
		flaw   hsm.Flaw
	}{
		{"unwrap-readable", func(kek pkcs11.ObjectHandle, wrapped []byte) ([]byte, error) {
			return f.a.unwrapped(keyWrap, kek, wrapped, secret(encrypts, flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true)))
		}, hsm.Flaw{Unwrapped: []uint{pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE}}},
		{"unwrap-extractable", func(kek pkcs11.ObjectHandle, wrapped []byte) ([]byte, error) {
			return f.a.unwrapped(keyWrap, kek, wrapped, secret(encrypts, flag(pkcs11.CKA_EXTRACTABLE, true)))
		}, hsm.Flaw{Unwrapped: []uint{pkcs11.CKA_EXTRACTABLE}}},
		{"add-decrypt-to-kek", func(kek pkcs11.ObjectHandle, wrapped []byte) ([]byte, error) {
			err := f.a.SetAttributeValue(f.a.session, kek, []*pkcs11.Attribute{flag(pkcs11.CKA_DECRYPT, true)})
			got, err2 := f.a.open(kek, wrapped)
			if err2 == nil {
				return got, nil
			}
			return nil, errors.Join(err, err2)
		}, hsm.Flaw{Flags: map[uint]bool{pkcs11.CKA_MODIFIABLE: true}}},
		{"copy-kek-with-decrypt", func(kek pkcs11.ObjectHandle, wrapped []byte) ([]byte, error) {
			c, err := f.a.CopyObject(f.a.session, kek, []*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_DECRYPT, true)})
			if err != nil {
				return nil, err
			}
			return f.a.open(c, wrapped)
		}, hsm.Flaw{Flags: map[uint]bool{ckaCopyable: true, pkcs11.CKA_MODIFIABLE: true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.attack(kek, wrapped)
			f.fails(t, got, err)
			weak, theirs := f.weakKEK(t, keystore.SealSession256, f.key, test.flaw)
			got, err = test.attack(weak, theirs)
			f.wins(t, got, err)
		})
	}
}

// TestAttackSwap gives blobs of a state file to other devices and usages.
func TestAttackSwap(t *testing.T) {
	f := newField(t)
	k, err := f.s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	blob, err := f.s.Seal(k, []byte("device 1"))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		t.Fatal(err)
	}
	sealed.Algorithm = keystore.AES256CBC
	for name, try := range map[string]func() (keystore.Key, error){
		"device": func() (keystore.Key, error) { return f.s.Unseal(keystore.HMACSHA256, blob, []byte("device 2")) },
		"usage":  func() (keystore.Key, error) { return f.s.Unseal(keystore.AES256CBC, blob, []byte("device 1")) },
		"usage-forged": func() (keystore.Key, error) {
			return f.s.Unseal(keystore.AES256CBC, sealed.Bytes(), []byte("device 1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := try(); !errors.Is(err, keystore.ErrForeign) {
				t.Errorf("unseal: %v", err)
			}
		})
	}
	// Without the tag it would work: a wrapped key does not say what it is for.
	h, err := f.a.UnwrapKey(f.a.session, keyWrap, f.kek(t, "msl-seal-session"), sealed.Wrapped, secret(encrypts))
	if err != nil {
		t.Errorf("the swap fails without the tag too, so it proves nothing: %v", err)
	}
	f.a.DestroyObject(f.a.session, h)
}
