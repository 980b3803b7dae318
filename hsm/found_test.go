package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestLoginEachTime refuses a key that wants a login for each operation, which would fail as if
// the session were not logged in, so that all sessions would be opened anew again and again.
func TestLoginEachTime(t *testing.T) {
	s, token := newStore(t)
	a := newAttacker(t, token)
	label := pkcs11.NewAttribute(pkcs11.CKA_LABEL, "each-time")
	_, _, err := a.GenerateKeyPair(a.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)},
		[]*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, true), label, pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, 2048), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})},
		[]*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, true), label, flag(pkcs11.CKA_PRIVATE, true), flag(pkcs11.CKA_SENSITIVE, true), flag(pkcs11.CKA_EXTRACTABLE, false),
			flag(pkcs11.CKA_SIGN, true), flag(pkcs11.CKA_DECRYPT, false), flag(pkcs11.CKA_UNWRAP, false), flag(pkcs11.CKA_SIGN_RECOVER, false), flag(pkcs11.CKA_DERIVE, false),
			flag(pkcs11.CKA_ALWAYS_AUTHENTICATE, true), flag(ckaCopyable, false), flag(pkcs11.CKA_MODIFIABLE, false)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lookup("each-time"); !errors.Is(err, keystore.ErrWrongKey) || !strings.Contains(err.Error(), "CKA_ALWAYS_AUTHENTICATE") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 4 {
		t.Errorf("%d keys are listed, %v", len(all), err)
	}
	if epoch := s.Stats().Epoch; epoch != 1 {
		t.Errorf("the sessions were opened %d times", epoch)
	}
}

// TestOddTruths has a module tell truth values in other forms than one byte of 0 or 1: no key
// counts as one that may do less than it may.
func TestOddTruths(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	s := open(t, c)
	v, err := s.Create("signs", keystore.RSASign2048)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	if _, err := v.Key.(crypto.Signer).Sign(nil, digest[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, attribute := range []uint{pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE, pkcs11.CKA_SIGN_RECOVER, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_MODIFIABLE, pkcs11.CKA_PRIVATE} {
		s := open(t, c)
		m.Inject(hsmtest.Fault{Function: "C_GetAttributeValue", Attribute: []uint{attribute}, Garble: true}) // 0xff, or 0xfe for true
		if _, err := s.Lookup("signs"); err == nil {
			t.Errorf("attribute %#x: %v", attribute, err)
		}
		m.Clear()
		s.Close()
	}
}

// TestTwins finds a key beside another one with its label and identifier: one that is the same
// key may be there, another key not.
func TestTwins(t *testing.T) {
	s, token := newStore(t)
	value := bytes.Repeat([]byte{7}, 32)
	if _, err := s.Provision("mac", keystore.HMACSHA256, value); err != nil {
		t.Fatal(err)
	}
	a := newAttacker(t, token)
	if err := a.FindObjectsInit(a.session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, "mac")}); err != nil {
		t.Fatal(err)
	}
	found, _, err := a.FindObjects(a.session, 2)
	if err := errors.Join(err, a.FindObjectsFinal(a.session)); err != nil || len(found) != 1 {
		t.Fatalf("%d, %v", len(found), err)
	}
	told, err := a.GetAttributeValue(a.session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
	if err != nil {
		t.Fatal(err)
	}
	twin := func(value []byte) {
		t.Helper()
		_, err := a.CreateObject(a.session, append([]*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, "mac"), pkcs11.NewAttribute(pkcs11.CKA_ID, told[0].Value), pkcs11.NewAttribute(pkcs11.CKA_VALUE, value),
		}, secret([]uint{pkcs11.CKA_SIGN}, flag(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET))...))
		if err != nil {
			t.Fatal(err)
		}
	}
	c := hsm.Config{URI: token.URI, PIN: token.PIN}
	twin(value)
	if ring, err := open(t, c).Lookup("mac"); err != nil || len(ring) != 1 {
		t.Errorf("the same key twice: %d versions, %v", len(ring), err)
	}
	twin(bytes.Repeat([]byte{8}, 32))
	if _, err := open(t, c).Lookup("mac"); !errors.Is(err, keystore.ErrWrongKey) || !strings.Contains(err.Error(), `two different keys have the label "mac" and the CKA_ID`) {
		t.Errorf("another key: %v", err)
	}
}

// TestFewAtATime finds every version of a key in a module that gives one object at a time: a
// short answer is not the end of a search (PKCS #11 v2.40, C_FindObjects). The same object
// again and again is an error, and no endless search.
func TestFewAtATime(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	m.Inject(hsmtest.Fault{MaxFound: 1})
	for i := range 3 {
		s := open(t, c)
		if v, err := s.Create("mac", keystore.HMACSHA256); err != nil || v.Number != uint32(i+1) {
			t.Fatalf("version %d: %v", v.Number, err)
		}
		if ring, err := s.Lookup("mac"); err != nil || len(ring) != i+1 {
			t.Errorf("%d versions of %d, %v", len(ring), i+1, err)
		}
	}
	if all, err := open(t, c).List(); err != nil || len(all) != 3 {
		t.Errorf("%d keys of 3 are listed, %v", len(all), err)
	}
	m.Inject(hsmtest.Fault{Function: "C_FindObjects", Length: new(uint(1))})
	if _, err := hsm.Open(c); !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "found before") {
		t.Errorf("the same object again and again: %v", err)
	}
}

// TestSlotTwice opens a token whose slot the module lists twice: that is one token.
func TestSlotTwice(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{Function: "C_GetSlotList", Listed: new(uint(6))})
	open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
	if m.Counters().Fired == 0 {
		t.Error("no slot was listed twice")
	}
}

// TestOddAnswers has a module tell nothing, or what cannot be, of a good key: nobody is told to
// destroy the key for that, or that it does not exist.
func TestOddAnswers(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	s := open(t, c)
	if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	s.Close()
	for _, attribute := range []uint{
		pkcs11.CKA_CLASS, pkcs11.CKA_KEY_TYPE, pkcs11.CKA_VALUE_LEN, pkcs11.CKA_LABEL, pkcs11.CKA_SENSITIVE, pkcs11.CKA_ALWAYS_SENSITIVE, pkcs11.CKA_EXTRACTABLE,
		pkcs11.CKA_NEVER_EXTRACTABLE, pkcs11.CKA_PRIVATE, pkcs11.CKA_MODIFIABLE, ckaCopyable, pkcs11.CKA_DECRYPT,
	} {
		for _, odd := range []hsmtest.Fault{{Garble: true}, {Unknown: true}, {Length: new(uint(0))}, {Length: new(uint(3))}, {Length: new(uint(7))}} {
			odd.Function, odd.Attribute = "C_GetAttributeValue", []uint{attribute}
			s := open(t, c)
			m.Inject(odd)
			_, err := s.Lookup("mac")
			all, listed := s.List()
			_, made := s.Create("mac", keystore.HMACSHA256)
			m.Clear()
			s.Close()
			for _, err := range []error{err, listed, made} {
				if err != nil && (errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrExists) || strings.Contains(strings.ReplaceAll(err.Error(), "do not destroy", ""), "destroy")) {
					t.Errorf("attribute %#x, %+v: %v", attribute, odd, err)
				}
			}
			if err == nil && made != nil || errors.Is(err, keystore.ErrWeakKey) && listed == nil && len(all[0].Untold) == 0 {
				t.Errorf("attribute %#x, %+v: %v, %+v, %v", attribute, odd, err, all, made)
			}
		}
	}
}

// TestWrongLengths tells lengths of keys that others have. Whatever a key is taken for then, it
// computes what it does otherwise, and no error wants it destroyed.
func TestWrongLengths(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	for _, a := range []keystore.Algorithm{
		keystore.AES128CBC, keystore.AES256CBC, keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128,
		keystore.AESWrap128, keystore.AESUnwrap128, keystore.SealSession256, keystore.SealWrapping256, keystore.SealMAC256,
	} {
		label := a.String()
		if a.Sealing() {
			label = keystore.SealingLabel("msl", a)
		}
		s := open(t, c)
		key, err := s.Create(label, a)
		if err != nil {
			t.Fatal(err)
		}
		want := answers(t, key.Key)
		s.Close()
		for _, told := range []uint{16, 32, 64} {
			s := open(t, c)
			m.Inject(hsmtest.Fault{Function: "C_GetAttributeValue", Attribute: []uint{pkcs11.CKA_VALUE_LEN}, Told: &told})
			found, err := s.Lookup(label)
			_, made := s.Create(label, a)
			if told == uint(a.Size()) {
				made = nil
			}
			m.Clear()
			for _, err := range []error{err, made} {
				if err != nil && (errors.Is(err, keystore.ErrNotFound) || strings.Contains(strings.ReplaceAll(err.Error(), "do not destroy", ""), "; destroy") || strings.Contains(err.Error(), "\n")) {
					t.Errorf("%v of %d bytes: %v", a, told, err)
				}
			}
			if err == nil {
				if got := answers(t, found[len(found)-1].Key); got != want {
					t.Errorf("%v of %d bytes: %q, want %q", a, told, got, want)
				}
			} else if !strings.Contains(err.Error(), "CKA_VALUE_LEN") {
				t.Errorf("%v of %d bytes: %v", a, told, err)
			}
			s.Close()
		}
	}
}

// answers is what a key makes of a constant, if it encrypts or signs.
func answers(t *testing.T, k keystore.Key) string {
	t.Helper()
	var out []byte
	var err error
	switch k := k.(type) {
	case keystore.Cipher:
		out, err = k.Encrypt(make([]byte, 16), make([]byte, 16))
	case keystore.MAC:
		out, err = k.Sum([]byte("data"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestOddIdentifier makes keys in a module that does not tell their CKA_ID: the error says that,
// and nothing is left of them.
func TestOddIdentifier(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	s := open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
	for _, odd := range []hsmtest.Fault{{Length: new(uint(0))}, {Unknown: true}, {Garble: true}} {
		odd.Function, odd.Attribute = "C_GetAttributeValue", []uint{pkcs11.CKA_ID}
		for _, a := range []keystore.Algorithm{keystore.HMACSHA256, keystore.ECDSAP256} {
			m.Inject(odd)
			_, err := s.Create("new", a)
			m.Clear()
			if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "the key is removed") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, %+v: %v", a, odd, err)
			}
			if n := m.Counters().TokenObjects; n != 0 {
				t.Errorf("%v, %+v: %d objects are left", a, odd, n)
			}
		}
	}
}

// TestLoginUnsaid opens a token that requires a login and does not say so: nobody logged in.
func TestLoginUnsaid(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{Function: "C_GetTokenInfo", ClearFlags: pkcs11.CKF_LOGIN_REQUIRED})
	_, err := hsm.Open(hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
	if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "CKR_USER_NOT_LOGGED_IN: the PKCS #11 token") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}
