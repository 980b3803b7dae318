package hsm_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// An unwrapping is a key that unwraps, and something to unwrap.
type unwrapping struct {
	a         keystore.Algorithm
	mechanism []*pkcs11.Mechanism
	usages    []uint // of what it unwraps
	key       pkcs11.ObjectHandle
	wrapped   []byte
}

// unwrappings are the keys of a server and of a client that unwrap.
func (f *field) unwrappings(t *testing.T) []unwrapping {
	t.Helper()
	psk := make([]byte, 16)
	rand.Read(psk)
	if _, err := f.s.Provision("psk", keystore.AESUnwrap128, psk); err != nil {
		t.Fatal(err)
	}
	pair, err := f.s.Create("rsa", keystore.RSAUnwrap2048)
	if err != nil {
		t.Fatal(err)
	}
	session, _ := f.sealed(t)
	return []unwrapping{
		{keystore.SealSession256, keyWrap, encrypts, f.kek(t, "msl-seal-session"), session},
		{keystore.SealWrapping256, keyWrap, wraps, f.kek(t, "msl-seal-wrapping"), f.sealWrapping(t, psk)},
		{keystore.AESUnwrap128, keyWrap, encrypts, f.kek(t, "psk"), f.record(t, psk)},
		{keystore.RSAUnwrap2048, oaep, encrypts, f.kek(t, "rsa"), encryptOAEP(t, pair.Key, f.key)},
	}
}

// older is the same key as an older version made it.
func (f *field) older(t *testing.T, u unwrapping) unwrapping {
	t.Helper()
	flaw := hsm.Flaw{Unwrapped: hsm.PinnedBy(u.a)}
	if u.a.Sealing() {
		u.key, u.wrapped = f.weakKEK(t, u.a, f.key, flaw)
		return u
	}
	if u.a == keystore.AESUnwrap128 {
		flaw.Flags = map[uint]bool{pkcs11.CKA_WRAP: true} // to record something for it
	}
	h, err := f.s.CreateWeak("older-"+u.a.String(), u.a, flaw)
	if err != nil {
		t.Fatal(err)
	}
	u.key = pkcs11.ObjectHandle(h)
	u.wrapped = f.recordFor(t, u.key, u.a)
	return u
}

// as unwraps with one attribute of the attacker's choice.
func (a *attacker) as(u unwrapping, want *pkcs11.Attribute) error {
	k, err := a.UnwrapKey(a.session, u.mechanism, u.key, u.wrapped, secret(u.usages, want))
	if err != nil {
		return err
	}
	defer a.DestroyObject(a.session, k)
	got, err := a.GetAttributeValue(a.session, k, []*pkcs11.Attribute{pkcs11.NewAttribute(want.Type, nil)})
	if err == nil && !bytes.Equal(got[0].Value, want.Value) {
		err = errors.New("the key has another value there")
	}
	return err
}

// TestAttackPins unwraps sealed and recorded keys as objects that outlive the PIN, can be
// used without it, or have additional usages.
func TestAttackPins(t *testing.T) {
	f := newField(t)
	for _, u := range f.unwrappings(t) {
		pinned, older := hsm.PinnedBy(u.a), f.older(t, u)
		for _, must := range []uint{pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_VERIFY, pkcs11.CKA_DERIVE} {
			if !slices.Contains(pinned, must) {
				t.Errorf("%v says nothing of attribute %#x", u.a, must)
			}
		}
		for _, attribute := range pinned {
			t.Run(fmt.Sprintf("%v/%#x", u.a, attribute), func(t *testing.T) {
				want := flag(attribute, attribute != pkcs11.CKA_PRIVATE)
				if err := f.a.as(u, want); err == nil {
					t.Error("the attack succeeds")
				}
				if err := f.a.as(older, want); err != nil {
					t.Errorf("the attack fails against a key without the protection, so it proves nothing: %v", err)
				}
			})
		}
	}
}

// TestOlderTemplate opens a token whose keys were made by an older version.
func TestOlderTemplate(t *testing.T) {
	token := softhsm.Temp(t)
	maker := open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
	older := map[string]keystore.Algorithm{
		"msl-seal-session": keystore.SealSession256, "msl-seal-wrapping": keystore.SealWrapping256,
		"psk": keystore.AESUnwrap128, "rsa": keystore.RSAUnwrap2048,
	}
	for label, a := range older {
		if _, err := maker.CreateWeak(label, a, hsm.Flaw{Unwrapped: hsm.PinnedBy(a)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := maker.Create("msl-seal-mac", keystore.SealMAC256); err != nil {
		t.Fatal(err)
	}
	s := open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
	for label, a := range older {
		if _, err := s.Lookup(label); err != nil {
			t.Errorf("look up: %v", err)
		}
		noted(t, s, label, 1, true)
		if !a.Secret() {
			continue // a pair takes long to make
		}
		if _, err := s.Create(label, a); err != nil {
			t.Fatal(err)
		}
		noted(t, s, label, 2, false)
	}
	if _, err := s.Create("msl-seal-mac", keystore.SealMAC256); err != nil { // of the same version as the others
		t.Fatal(err)
	}
	k, err := s.Generate(keystore.HMACSHA256Block)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	blob, err := s.Seal(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := s.Unseal(keystore.HMACSHA256Block, blob, nil); err != nil {
		t.Error(err)
	} else {
		back.Close()
	}
}

// noted checks whether List notes the template of a key, which is not weak.
func noted(t *testing.T, s *hsm.Store, label string, version uint32, want bool) {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Label != label || i.Version != version {
			continue
		}
		is := slices.ContainsFunc(i.Notes, func(n string) bool { return strings.HasPrefix(n, "older-template: ") })
		if is != want || len(i.Weaknesses) > 0 {
			t.Errorf("%s version %d: notes %q, weaknesses %q", label, version, i.Notes, i.Weaknesses)
		}
		return
	}
	t.Errorf("%s version %d is not listed", label, version)
}
