package hsm_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// tokenOnly is a token on which every object is a token object.
func tokenOnly(t *testing.T, more ...hsmtest.Fault) (*hsmtest.Module, hsm.Config) {
	t.Helper()
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(append([]hsmtest.Fault{{TokenOnly: true}}, more...)...)
	return m, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
}

// TestSessionsElsewhere opens a token that makes no session keys, where none are wanted of it.
func TestSessionsElsewhere(t *testing.T) {
	m, c := tokenOnly(t)
	_, err := hsm.Open(c)
	if !errors.Is(err, keystore.ErrWeakKey) || !strings.Contains(err.Error(), "keystore.session-keys: memory") || strings.Contains(err.Error(), "\n") {
		t.Errorf("refused with %v", err)
	}
	c.SessionsElsewhere = true
	s := open(t, c)
	var keys []keystore.Key
	for label, a := range map[string]keystore.Algorithm{"encryption": keystore.AES256CBC, "mac": keystore.HMACSHA256, "pair": keystore.ECDSAP256} {
		v, err := s.Create(label, a)
		if err != nil {
			t.Fatalf("%v: %v", a, err)
		}
		keys = append(keys, v.Key)
	}
	if all, err := s.List(); err != nil || len(all) != len(keys) {
		t.Errorf("%d keys, %v", len(all), err)
	}
	// A possible failure of the device is distinguished from one of the data by a provisioned
	// key, since nothing else can be: the token is not given up for it.
	mac, err := keystore.Find[keystore.MAC](s, "mac")
	if err != nil {
		t.Fatal(err)
	}
	want, err := mac.Sum([]byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	m.Inject(hsmtest.Fault{TokenOnly: true}, hsmtest.Fault{Function: "C_Sign", Code: pkcs11.CKR_GENERAL_ERROR, Times: 2})
	if got, err := mac.Sum([]byte("data")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after it failed twice: %x, %v", got, err)
	}
	m.Inject(hsmtest.Fault{TokenOnly: true}, hsmtest.Fault{Function: "C_FindObjects", Code: pkcs11.CKR_GENERAL_ERROR, Times: 2})
	if _, err := s.Lookup("new"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("after it failed twice: %v", err)
	}
	if epoch := s.Stats().Epoch; epoch != 1 {
		t.Errorf("the sessions were opened %d times", epoch)
	}
}

// TestValueTold refuses provisioned keys whose values the module tells, where it makes no
// session keys with which that is tried first.
func TestValueTold(t *testing.T) {
	_, c := tokenOnly(t, hsmtest.Fault{Reveal: true, Function: "C_GetAttributeValue", Attribute: []uint{pkcs11.CKA_VALUE, pkcs11.CKA_PRIVATE_EXPONENT}})
	c.SessionsElsewhere = true
	s := open(t, c)
	for label, a := range map[string]keystore.Algorithm{"mac": keystore.HMACSHA256, "pair": keystore.RSADecrypt2048, "ec": keystore.ECDSAP256} {
		if _, err := s.Create(label, a); !errors.Is(err, keystore.ErrWeakKey) || !strings.Contains(err.Error(), "not-sensitive") {
			t.Errorf("%v: %v", a, err)
		}
	}
}

// TestNotBare has a module fail once as one does that makes no objects of the session: it is
// not taken for such a one.
func TestNotBare(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{Function: "C_GenerateKey", Code: pkcs11.CKR_TEMPLATE_INCONSISTENT, Times: 1})
	s := open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
	if _, err := s.Create("wraps", keystore.AESWrap128); err != nil {
		t.Error(err)
	}
}
