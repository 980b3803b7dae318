package hsm_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// stranger makes a key as other software does, open in every way, with a label that is also
// that of a key of the store.
func (a *attacker) stranger(t *testing.T, label string, size int) {
	t.Helper()
	_, err := a.GenerateKey(a.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), flag(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, size),
		flag(pkcs11.CKA_ENCRYPT, true), flag(pkcs11.CKA_DECRYPT, true), flag(pkcs11.CKA_WRAP, true), flag(pkcs11.CKA_UNWRAP, true),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// count is how many objects have a label.
func (a *attacker) count(t *testing.T, label string) int {
	t.Helper()
	err := a.FindObjectsInit(a.session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)})
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := a.FindObjects(a.session, 100)
	if err = errors.Join(err, a.FindObjectsFinal(a.session)); err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// TestStrangers has other software use the labels of keys that are in use.
func TestStrangers(t *testing.T) {
	token := softhsm.Temp(t)
	c := hsm.Config{URI: token.URI, PIN: token.PIN}
	s := open(t, c)
	a := newAttacker(t, token)
	for label, algorithm := range map[string]keystore.Algorithm{"mac": keystore.HMACSHA256, "msl-seal-session": keystore.SealSession256} {
		if _, err := s.Create(label, algorithm); err != nil {
			t.Fatal(err)
		}
		a.stranger(t, label, 32)
	}
	s = open(t, c) // and knows no keys
	if ring, err := s.Lookup("mac"); err != nil || len(ring) != 1 {
		t.Fatalf("%d versions, %v", len(ring), err)
	}
	if v, err := s.Create("mac", keystore.HMACSHA256); err != nil || v.Number != 2 {
		t.Errorf("version %d, %v", v.Number, err)
	}
	all, err := s.List()
	told := slices.IndexFunc(all, func(k keystore.Info) bool { return strings.HasPrefix(strings.Join(k.Notes, ""), "stranger: ") })
	if err != nil || len(all) != 3 || told < 0 || len(all[told].Weaknesses) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := errors.Join(s.Destroy("mac", 2), s.Destroy("mac", 1)); err != nil {
		t.Error(err)
	}
	if n := a.count(t, "mac"); n != 1 {
		t.Errorf("%d keys are left, want that of the other software", n)
	}
	if err := s.Destroy("msl-seal-session", 0); err != nil || a.count(t, "msl-seal-session") > 0 {
		t.Errorf("every version: %v", err)
	}
}

// TestStrangerStays destroys a version by a call that fails all the same, so that it is made again:
// the key of other software, which would count as that version by then, stays.
func TestStrangerStays(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	s := open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
	if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	a := newAttacker(t, token)
	a.stranger(t, "mac", 32)
	m.Inject(hsmtest.Fault{Function: "C_DestroyObject", Code: pkcs11.CKR_GENERAL_ERROR, After: true, Times: 1})
	if err := s.Destroy("mac", 1); err != nil {
		t.Error(err)
	}
	if n := a.count(t, "mac"); n != 1 {
		t.Errorf("%d keys are left, want that of the other software", n)
	}
}

// TestForeignFirst has other software make a key before the store does: it is version 1, and
// what it is for decides whether the store takes it.
func TestForeignFirst(t *testing.T) {
	token := softhsm.Temp(t)
	c := hsm.Config{URI: token.URI, PIN: token.PIN}
	s := open(t, c)
	a := newAttacker(t, token)
	a.stranger(t, "msl-seal-session", 32)
	if _, err := s.Create("msl-seal-session", keystore.SealSession256); err != nil {
		t.Fatal(err) // the one of other software may wrap too, so it is taken for the same
	}
	refused(t, c, keystore.ErrWeakKey, `"msl-seal-session" version 1`)
	c.AllowWeak = hsm.KeyWeaknesses()
	s = open(t, c)
	if all, err := s.List(); err != nil || len(all) != 2 || len(all[1].Weaknesses) == 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := s.Destroy("msl-seal-session", 1); err != nil {
		t.Fatal(err)
	}
	open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
}

// TestForeignKeys finds nothing but a key of other software. Whatever it is, its owner may need it,
// and accepting its weaknesses does not make it a key of this store.
func TestForeignKeys(t *testing.T) {
	const advice = "; give it another label with the software that made it"
	token := softhsm.Temp(t)
	s := open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
	a := newAttacker(t, token)
	for label, size := range map[string]int{"mac": 24, "any": 32, "msl-seal-session": 16} {
		a.stranger(t, label, size)
		_, err := s.Lookup(label)
		if !errors.Is(err, keystore.ErrWeakKey) || !strings.HasSuffix(err.Error(), advice) || strings.Contains(err.Error(), "destroy") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", label, err)
		}
		accepting := open(t, hsm.Config{URI: token.URI, PIN: token.PIN, AllowWeak: hsm.KeyWeaknesses()})
		_, err = accepting.Lookup(label)
		if !errors.Is(err, keystore.ErrNotFound) || !strings.Contains(err.Error(), " does not match any algorithm") || !strings.HasSuffix(err.Error(), advice) {
			t.Errorf("%s, with its weaknesses accepted: %v", label, err)
		}
	}
}
