package hsm_test

import (
	"crypto"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// foundKeys are keys that are found again in a token: what is remembered of each is another thing.
var foundKeys = map[string]keystore.Algorithm{
	"rsa": keystore.RSASign2048, "pss": keystore.RSAPSS2048, "decrypts": keystore.RSADecrypt2048, "unwraps": keystore.RSAUnwrap2048,
	"ec": keystore.ECDSAP256, "mac": keystore.HMACSHA256, "cipher": keystore.AES128CBC,
}

// TestWrongFirstAnswer has a module answer wrongly, once, in each call while keys are found for
// the first time. They are found, or the device is blamed; and after a recovery each that was
// found is the same key as before.
func TestWrongFirstAnswer(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	s := open(t, c)
	seal(t, s)
	labels := []string{"msl-seal-session"}
	for label, a := range foundKeys {
		labels = append(labels, label)
		if _, err := s.Create(label, a); err != nil {
			t.Fatal(err)
		}
	}
	public := publicHalves(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wrong := []hsmtest.Fault{
		{Function: "C_Sign", Garble: true}, {Function: "C_Encrypt", Garble: true}, {Function: "C_WrapKey", Garble: true}, {Function: "C_Decrypt", Garble: true},
		{Function: "C_GetAttributeValue", Attribute: []uint{pkcs11.CKA_EC_POINT}, Garble: true},
	}
	// A modulus is read with all else, and what is wrong with that is told as such.
	n := 0
	for _, fault := range wrong {
		for fault.Skip = 0; fault.Skip < 12; fault.Skip++ {
			if n++; !soak() && n%5 != 0 {
				continue
			}
			what := fmt.Sprintf("%s, call %d", fault.Function, fault.Skip+1)
			s := open(t, c)
			fault.Times = 1
			m.Inject(fault)
			for _, label := range labels {
				if _, err := s.Lookup(label); err != nil && !blames(err) {
					t.Errorf("%s: %s: %v", what, label, err)
				}
			}
			m.Clear()
			hsm.ConfirmMarks(s)
			m.Inject(hsmtest.Fault{Function: "C_GenerateKey", VanishSessions: true, Times: 1})
			if _, err := s.Generate(keystore.AES128CBC); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			for _, label := range labels {
				if _, err := s.Lookup(label); err != nil {
					t.Errorf("%s: %s after a recovery: %v", what, label, err)
				}
			}
			if now := publicHalves(t, s); now != public {
				t.Errorf("%s: other public halves", what)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// publicHalves are those of the pairs among foundKeys.
func publicHalves(t *testing.T, s *hsm.Store) (all string) {
	t.Helper()
	for _, label := range []string{"rsa", "pss", "decrypts", "unwraps", "ec"} {
		v, err := s.Lookup(label)
		if err != nil {
			t.Fatal(err)
		}
		all += fmt.Sprint(v[0].Key.(interface{ Public() crypto.PublicKey }).Public())
	}
	return all
}

// TestMarkConfirmed has the first value wrong that a key made, and then each of several: it is
// put right only by two that agree.
func TestMarkConfirmed(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	find := func() error { _, err := s.Lookup("mac"); return err }
	renew := func() error {
		m.Inject(hsmtest.Fault{Function: "C_GenerateKey", VanishSessions: true, Times: 1})
		_, err := s.Generate(keystore.AES128CBC)
		return errors.Join(err, find())
	}
	forget := func() { // as a store does that is opened anew
		if err := s.Destroy("mac", 0); err != nil {
			t.Fatal(err)
		}
		m.Inject(hsmtest.Fault{Function: "C_Sign", Garble: true, Skip: 1, Times: 1}) // after its creation was judged
		if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	if err := renew(); !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatalf("the wrong value was not remembered: %v", err)
	}
	forget()
	m.Inject(hsmtest.Fault{Function: "C_Sign", Garble: true, Times: 1, Skip: 1})
	hsm.ConfirmMarks(s) // two different ones: nothing is known
	if err := renew(); !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatalf("confirmed by values that differ: %v", err)
	}
	forget()
	hsm.ConfirmMarks(s)
	if err := renew(); err != nil {
		t.Errorf("after it was confirmed: %v", err)
	}
}

// TestHalvesApart puts the public half of another pair in the place of a pair's own.
func TestHalvesApart(t *testing.T) {
	s, token := newStore(t)
	for _, label := range []string{"one", "other"} {
		if _, err := s.Create(label, keystore.ECDSAP256); err != nil {
			t.Fatal(err)
		}
	}
	a := newAttacker(t, token)
	half := func(label string) (h pkcs11.ObjectHandle, point, id []byte) {
		class := pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY)
		if err := a.FindObjectsInit(a.session, []*pkcs11.Attribute{class, pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}); err != nil {
			t.Fatal(err)
		}
		found, _, err := a.FindObjects(a.session, 2)
		if err := errors.Join(err, a.FindObjectsFinal(a.session)); err != nil || len(found) != 1 {
			t.Fatalf("%d, %v", len(found), err)
		}
		told, err := a.GetAttributeValue(a.session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil), pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
		if err != nil {
			t.Fatal(err)
		}
		return found[0], told[0].Value, told[1].Value
	}
	own, _, id := half("one")
	_, point, _ := half("other")
	params := []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7} // P-256
	if err := a.DestroyObject(a.session, own); err != nil {
		t.Fatal(err)
	}
	if _, err := a.CreateObject(a.session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC), flag(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, point),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, "one"), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}); err != nil {
		t.Fatal(err)
	}
	again := open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
	_, err := again.Lookup("one")
	if err == nil || !strings.Contains(err.Error(), `key "one" version 1 and its public half do not work together`) || strings.Contains(err.Error(), "\n") {
		t.Errorf("halves of two pairs: %v", err)
	}
	if _, err := again.Lookup("other"); err != nil {
		t.Error(err)
	}
}
