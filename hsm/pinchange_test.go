package hsm_test

import (
	"bytes"
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

// opensWith reports whether a token takes a PIN, by changing it to itself.
func opensWith(t *testing.T, uri *hsm.URI, pin []byte) bool {
	t.Helper()
	err := hsm.ChangePIN(uri, hsm.User, pin, pin)
	if err != nil && !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("open: %v", err)
	}
	return err == nil
}

// TestFaultsOfPINs fails each call while PINs are changed. The PIN is then either the old or
// the new one, what is reported is true, and the change works when it is made again.
func TestFaultsOfPINs(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	uri := &hsm.URI{Token: "pins", ModulePath: m.Path}
	pin, so := []byte("pin 0"), []byte("12345678")
	if err := hsm.InitToken(m.Path, "pins", so, pin); err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, change := range map[string]func(old, pin []byte) error{
		"C_SetPIN":  func(old, pin []byte) error { return hsm.ChangePIN(uri, hsm.User, old, pin) },
		"C_InitPIN": func(_, pin []byte) error { return hsm.ResetPIN(uri, so, pin) },
	} {
		for _, function := range []string{"C_OpenSession", "C_Login", name, "C_CloseSession"} {
			for _, after := range []bool{false, true} {
				n++
				what := fmt.Sprintf("%s, %s fails, after %t", name, function, after)
				next := fmt.Appendf(nil, "pin %d", n)
				m.Inject(hsmtest.Fault{Function: function, Code: pkcs11.CKR_DEVICE_ERROR, Times: 1, After: after})
				err := change(pin, next)
				m.Clear()
				if err == nil {
					t.Errorf("%s: no error", what)
				}
				if unknown := strings.Contains(fmt.Sprint(err), "not known which PIN"); unknown != (function == name) {
					t.Errorf("%s: %v", what, err)
				}
				if told := strings.Contains(fmt.Sprint(err), "the PIN was changed before that"); told != (function == "C_CloseSession") {
					t.Errorf("%s: %v", what, err)
				}
				old, changed := opensWith(t, uri, pin), opensWith(t, uri, next)
				if old == changed {
					t.Fatalf("%s: opens with the old PIN: %t, with the new one: %t", what, old, changed)
				}
				if changed {
					pin = next
				}
				if err := change(pin, next); err != nil {
					t.Errorf("%s: again: %v", what, err)
				}
				pin = next
			}
		}
	}
}

// TestRefusedPINs asks for what a token refuses, and for what it cannot do.
func TestRefusedPINs(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	uri := &hsm.URI{Token: token.Label, ModulePath: m.Path}
	pin, so := readPIN(t, token), []byte("not that")
	told, err := hsm.PINsOf(uri)
	if err != nil || !told.Set() || told.Pad() || told.State(hsm.User) != hsm.PINFine || told.Label != token.Label {
		t.Errorf("a new token: %+v, %v", told, err)
	}
	for what, c := range map[string]struct {
		change func() error
		code   uint // of C_Login, if not 0
		want   string
	}{
		"a short PIN":      {func() error { return hsm.ChangePIN(uri, hsm.User, pin, []byte("1")) }, 0, "bytes long"},
		"no PIN":           {func() error { return hsm.ChangePIN(uri, hsm.User, pin, nil) }, 0, "bytes long"},
		"a long PIN":       {func() error { return hsm.ResetPIN(uri, so, bytes.Repeat([]byte("1"), 300)) }, 0, "bytes long"},
		"a wrong old PIN":  {func() error { return hsm.ChangePIN(uri, hsm.User, so, []byte("new pin")) }, 0, "CKR_PIN_INCORRECT: the PIN of the user; "},
		"a wrong SO PIN":   {func() error { return hsm.ResetPIN(uri, pin, []byte("new pin")) }, 0, "CKR_PIN_INCORRECT: the PIN of the security officer; "},
		"a locked PIN":     {func() error { return hsm.ChangePIN(uri, hsm.User, pin, []byte("new pin")) }, pkcs11.CKR_PIN_LOCKED, "C_Login: CKR_PIN_LOCKED"},
		"a weak PIN":       {func() error { return hsm.ChangePIN(uri, hsm.User, pin, []byte("new pin")) }, pkcs11.CKR_PIN_TOO_WEAK, "C_SetPIN: CKR_PIN_TOO_WEAK"},
		"a PIN not in use": {func() error { return hsm.ResetPIN(uri, pin, nil) }, 0, "bytes long"},
	} {
		function := "C_Login"
		if strings.HasPrefix(c.want, "C_SetPIN") {
			function = "C_SetPIN"
		}
		if c.code != 0 {
			m.Inject(hsmtest.Fault{Function: function, Code: c.code})
		}
		err := c.change()
		m.Clear()
		if !errors.Is(err, keystore.ErrPIN) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "not known") {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A token that wants another PIN first lets nobody do anything else.
	m.Inject(hsmtest.Fault{Function: "C_Login", Code: pkcs11.CKR_PIN_EXPIRED, Times: 1, After: true})
	if err := hsm.ChangePIN(uri, hsm.User, pin, []byte("new pin")); err != nil {
		t.Errorf("an expired PIN: %v", err)
	}
	m.Clear()
	if !opensWith(t, uri, []byte("new pin")) {
		t.Error("the new PIN does not open the token")
	}
	if err := hsm.ChangePIN(&hsm.URI{Token: "none", ModulePath: m.Path}, hsm.User, pin, pin); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("no token: %v", err)
	}
	if n := m.Counters().Sessions; n != 0 {
		t.Errorf("%d sessions are left open", n)
	}
}
