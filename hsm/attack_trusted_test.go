package hsm_test

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// leaving is the template of a sealed key that trusted keys alone wrap, with changes.
func leaving(usages []uint, changes ...*pkcs11.Attribute) []*pkcs11.Attribute {
	t := secret(usages, append([]*pkcs11.Attribute{flag(pkcs11.CKA_EXTRACTABLE, true)}, changes...)...)
	bound := flag(pkcs11.CKA_WRAP_WITH_TRUSTED, true)
	for _, c := range changes {
		if c.Type == bound.Type {
			bound = c
		}
	}
	return append([]*pkcs11.Attribute{bound}, t...)
}

// TestAttackTrusted has a sealed wrapping key open recorded traffic, by way of the trusted
// keys: with the PIN of the user, but not that of the security officer.
func TestAttackTrusted(t *testing.T) {
	token := softhsm.Temp(t)
	s := open(t, hsm.Config{URI: token.URI, PIN: token.PIN, TrustedWrapping: true})
	rotateTrusted(t, s, token.SOPIN)
	weak, end, err := s.TrustedWithout(keystore.SealSession256, token.SOPIN, pkcs11.CKA_WRAP_TEMPLATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	if _, err := s.Lookup("msl-seal-mac"); err != nil { // logs in again
		t.Fatal(err)
	}
	f := &field{s, token, newAttacker(t, token), make([]byte, 16)}
	rand.Read(f.key)
	psk := make([]byte, 16)
	rand.Read(psk)
	recorded, stored := f.record(t, psk), f.sealWrapping(t, psk)
	session, wrapping := f.kek(t, "msl-seal-session"), f.kek(t, "msl-seal-wrapping")
	unwrap := func(kek pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
		return f.a.UnwrapKey(f.a.session, keyWrap, kek, wrapped, template)
	}
	hop := func(by pkcs11.ObjectHandle, template []*pkcs11.Attribute) ([]byte, error) {
		k, err := unwrap(wrapping, stored, template)
		if err != nil {
			return nil, err
		}
		defer f.a.DestroyObject(f.a.session, k)
		again, err := f.a.WrapKey(f.a.session, keyWrap, by, k)
		if err != nil {
			return nil, err
		}
		if k, err = unwrap(by, again, leaving(encrypts)); err != nil {
			return nil, err
		}
		defer f.a.DestroyObject(f.a.session, k)
		return f.a.open(k, recorded)
	}
	plain := f.plain(t, flag(pkcs11.CKA_WRAP, true), flag(pkcs11.CKA_UNWRAP, true))
	get := func(template []*pkcs11.Attribute) func() ([]byte, error) {
		return func() ([]byte, error) { return f.a.unwrapped(keyWrap, wrapping, stored, template) }
	}
	copied := func(changes ...*pkcs11.Attribute) func() ([]byte, error) {
		return func() ([]byte, error) {
			k, err := f.a.CopyObject(f.a.session, wrapping, append([]*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, false)}, changes...))
			if err != nil {
				return nil, err
			}
			return f.a.open(k, stored)
		}
	}
	for name, attack := range map[string]func() ([]byte, error){
		"readable":        get(leaving(wraps, flag(pkcs11.CKA_SENSITIVE, false))),
		"bound":           get(leaving(wraps)),
		"not bound":       get(leaving(wraps, flag(pkcs11.CKA_WRAP_WITH_TRUSTED, false))),
		"left out":        get(secret(wraps, flag(pkcs11.CKA_EXTRACTABLE, true))),
		"modifiable":      get(leaving(wraps, flag(pkcs11.CKA_MODIFIABLE, true))),
		"copyable":        get(leaving(wraps, flag(ckaCopyable, true))),
		"under an own":    func() ([]byte, error) { return hop(plain, leaving(wraps)) },
		"under another":   func() ([]byte, error) { return hop(session, leaving(wraps)) },
		"of another sort": func() ([]byte, error) { return hop(session, leaving(encrypts)) },
		"under the same":  func() ([]byte, error) { return hop(wrapping, leaving(wraps)) },
		"copy":            copied(flag(pkcs11.CKA_DECRYPT, true)),
		"copy modifiable": copied(flag(pkcs11.CKA_MODIFIABLE, true)),
		"copy of a token": copied(),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := attack()
			f.fails(t, got, err)
		})
	}
	got, err := hop(pkcs11.ObjectHandle(weak), leaving(wraps))
	f.wins(t, got, err)
}

// TestTrustedModules opens stores over modules that do not keep what trusted wrapping
// relies on: one line says what, and a key is not made.
func TestTrustedModules(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	config := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN, TrustedWrapping: true}
	ignoring := func(attribute uint) hsmtest.Fault {
		return hsmtest.Fault{Attribute: []uint{attribute}, Ignore: true, Pretend: true}
	}
	for name, test := range map[string]struct {
		fault      hsmtest.Fault
		open, make string
	}{
		"sound":                     {},
		"no wrap-with-trusted":      {fault: hsmtest.Fault{Attribute: []uint{pkcs11.CKA_WRAP_WITH_TRUSTED}, Unknown: true}, open: "wrap-with-trusted: the module cannot do it"},
		"wrap-with-trusted ignored": {fault: ignoring(pkcs11.CKA_WRAP_WITH_TRUSTED), open: "wrap-with-trusted: the module lets a key"},
		"trusted by the user":       {fault: ignoring(pkcs11.CKA_TRUSTED), open: "trusted-by-officer: the module lets anyone who has the PIN"},
		"no trusted":                {fault: hsmtest.Fault{Attribute: []uint{pkcs11.CKA_TRUSTED}, Unknown: true}, make: "CKA_TRUSTED"},
		"wrap-template ignored":     {fault: hsmtest.Fault{Attribute: []uint{pkcs11.CKA_WRAP_TEMPLATE}, Ignore: true}, make: "wrap-template"},
		"no officer":                {fault: hsmtest.Fault{Function: "C_Login", Code: pkcs11.CKR_USER_TYPE_INVALID, Skip: 1}, make: "CKR_USER_TYPE_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			m.Clear()
			if test.fault.Code == 0 && name != "sound" {
				m.Inject(test.fault)
			}
			s, err := hsm.Open(config)
			if test.open != "" || err != nil {
				says(t, err, test.open)
				return
			}
			defer s.Close()
			if test.fault.Code != 0 {
				test.fault.Skip = 0
				m.Inject(test.fault)
			}
			_, err = s.CreateTrusted("msl-seal-wrapping", keystore.SealWrapping256, token.SOPIN)
			says(t, err, test.make)
			m.Clear()
			s.Destroy("msl-seal-wrapping", 0)
			if all, err := s.List(); err != nil || len(all) > 0 {
				t.Errorf("%v, %v", all, err)
			}
		})
	}
}

// says wants an error with that text, or none.
func says(t *testing.T, err error, text string) {
	t.Helper()
	if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n")) {
		t.Errorf("%v, want %q", err, text)
	}
}

// TestOfficerPIN tries a wrong PIN of the security officer once.
func TestOfficerPIN(t *testing.T) {
	s, token := trustingStore(t)
	_, err := s.CreateTrusted("msl-seal-session", keystore.SealSession256, append([]byte("x"), token.SOPIN[1:]...))
	if !errors.Is(err, keystore.ErrPIN) || !strings.Contains(err.Error(), "security officer") {
		t.Error(err)
	}
	if n := s.Calls()["C_Login"]; n != 2 {
		t.Errorf("%d logins", n)
	}
	if err := s.MarkTrusted("msl-seal-session", 1, token.SOPIN); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	sealNew(t, s)
	if _, err := s.CreateTrusted("msl-seal-mac", keystore.SealMAC256, token.SOPIN); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
