package hsm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// vagueRefusals are answers of a module to a wrong PIN that do not say that it is wrong.
var vagueRefusals = []uint{pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_ARGUMENTS_BAD, 0x80000001}

// TestVagueRefusal has a token count a wrong PIN, and the module answer something else: the PIN
// is not given again, at a start, by an officer, or in a recovery.
func TestVagueRefusal(t *testing.T) {
	for _, code := range vagueRefusals {
		t.Run(fmt.Sprintf("%#x", code), func(t *testing.T) {
			token := softhsm.Temp(t)
			m := hsmtest.New(t, token.Module)
			uri := &hsm.URI{Token: token.Label, ModulePath: m.Path}
			once := func(what string, op func() error) {
				before := m.Counters().Calls["C_Login"]
				err := op()
				if n := m.Counters().Calls["C_Login"] - before; n != 1 {
					t.Errorf("%s: %d logins", what, n)
				}
				if !errors.Is(err, keystore.ErrPIN) || errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "and the token counted a wrong PIN") {
					t.Errorf("%s: %v", what, err)
				}
			}
			s := open(t, hsm.Config{URI: uri.String(), PIN: token.PIN})
			mac, err := s.Create("mac", keystore.HMACSHA256)
			if err != nil {
				t.Fatal(err)
			}
			lies := hsmtest.Fault{Function: "C_Login", Code: code, After: true}
			// As where somebody changed the PIN meanwhile.
			m.Inject(hsmtest.Fault{Function: "C_Sign", Code: pkcs11.CKR_DEVICE_ERROR, Times: 2}, hsmtest.Fault{Function: "C_Login", Code: code},
				hsmtest.Fault{Function: "C_GetTokenInfo", Skip: 1, SetFlags: pkcs11.CKF_USER_PIN_COUNT_LOW})
			before := m.Counters().Calls["C_Login"]
			for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
				_, err = mac.Key.(keystore.MAC).Sum(nil)
			}
			if n := m.Counters().Calls["C_Login"] - before; n != 1 || err == nil || !strings.Contains(err.Error(), "and the token counted a wrong PIN") {
				t.Errorf("recovery: %d logins: %v", n, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			m.Inject(lies)
			once("security officer", func() error { return hsm.CheckPIN(uri, hsm.SecurityOfficer, []byte("wrong")) })
			once("start", func() error {
				_, err := hsm.Open(hsm.Config{URI: uri.String(), PIN: hsm.PINSource("file:" + write(t, "pin", "wrong", 0o600))})
				return err
			})
		})
	}
}

// TestUnclearRefusal has a module answer to the PIN what says nothing of it, and the token tell
// nothing either: at a start the PIN is given twice at most, since it may be counted.
func TestUnclearRefusal(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	for _, code := range append(vagueRefusals, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_TOKEN_NOT_RECOGNIZED) {
		before := m.Counters().Calls["C_Login"]
		m.Inject(hsmtest.Fault{Function: "C_Login", Code: code})
		refused(t, c, keystore.ErrUnavailable, "C_Login: ")
		if n := m.Counters().Calls["C_Login"] - before; n > 2 {
			t.Errorf("%#x: %d logins", code, n)
		}
	}
}

// TestUnclearForAMoment has other programs disturb the login at a start for a moment: the second one
// comes after that.
func TestUnclearForAMoment(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{Function: "C_Login", Code: pkcs11.CKR_GENERAL_ERROR, For: 100 * time.Millisecond})
	open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
	if n := m.Counters().Calls["C_Login"]; n != 2 {
		t.Errorf("%d logins", n)
	}
}

// TestUnclearRecovery has a module answer to the PIN what says nothing of it when the token is opened
// again: it is given after pauses that grow.
func TestUnclearRecovery(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	mac, err := s.Create("mac", keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	m.Inject(hsmtest.Fault{Function: "C_Login", Code: pkcs11.CKR_GENERAL_ERROR}, hsmtest.Fault{Function: "C_SignInit", VanishSessions: true, Times: 1})
	before := m.Counters().Calls["C_Login"]
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		_, err = mac.Key.(keystore.MAC).Sum(nil)
	}
	if n := m.Counters().Calls["C_Login"] - before; n == 0 || n > 3 || !errors.Is(err, keystore.ErrUnavailable) || !errors.Is(err, keystore.ErrUnclear) {
		t.Errorf("%d logins: %v", n, err)
	}
	m.Clear()
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		_, err = mac.Key.(keystore.MAC).Sum(nil)
	}
	if err != nil {
		t.Error(err)
	}
}
