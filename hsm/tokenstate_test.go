package hsm_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestRefusedLogins has tokens refuse a login in ways of which their flags say nothing, or
// something else: the line says what the code means, and no more.
func TestRefusedLogins(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	told := func(set, clear uint) hsmtest.Fault {
		return hsmtest.Fault{Function: "C_GetTokenInfo", SetFlags: set, ClearFlags: clear}
	}
	fine := hsmtest.Fault{Function: "C_Login", Delay: 1}
	for name, test := range map[string]struct {
		code        uint
		told        hsmtest.Fault
		want        error
		words, user string // of a store, and of a change of the PIN
	}{
		"locked":           {pkcs11.CKR_PIN_LOCKED, fine, keystore.ErrPIN, "LOCKED: the token's security officer", "it is LOCKED now"},
		"expired":          {pkcs11.CKR_PIN_EXPIRED, fine, keystore.ErrPIN, "the token requires a new PIN first", ""},
		"never set":        {pkcs11.CKR_USER_PIN_NOT_INITIALIZED, fine, keystore.ErrPIN, "sets the first one", "check it before"},
		"wrong, no flags":  {pkcs11.CKR_PIN_INCORRECT, told(0, pkcs11.CKF_USER_PIN_INITIALIZED), keystore.ErrPIN, "it was not tried again: check the PIN", "check it before"},
		"wrong, and old":   {pkcs11.CKR_PIN_INCORRECT, told(pkcs11.CKF_USER_PIN_TO_BE_CHANGED, 0), keystore.ErrPIN, "it was not tried again: check the PIN", "check it before"},
		"wrong, last try":  {pkcs11.CKR_PIN_INCORRECT, told(pkcs11.CKF_USER_PIN_FINAL_TRY, 0), keystore.ErrPIN, "ONE try is left", "ONE try is left"},
		"another":          {pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, fine, keystore.ErrUnavailable, "the security officer is logged in to the token", ""},
		"no PIN pad there": {pkcs11.CKR_ARGUMENTS_BAD, told(pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH, 0), keystore.ErrUnavailable, "C_Login: CKR_ARGUMENTS_BAD", ""},
		"canceled":         {pkcs11.CKR_FUNCTION_CANCELED, told(pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH, 0), keystore.ErrUnavailable, "C_Login: CKR_FUNCTION_CANCELED", ""},
	} {
		m.Inject(hsmtest.Fault{Function: "C_Login", Code: test.code}, test.told)
		_, err := hsm.Open(c)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.words) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want %q", name, err, test.words)
		}
		if test.user == "" {
			continue
		}
		uri := &hsm.URI{Token: token.Label, ModulePath: m.Path}
		if err := hsm.ChangePIN(uri, hsm.User, []byte("1234"), []byte("5678")); !errors.Is(err, keystore.ErrPIN) || !strings.Contains(err.Error(), test.user) {
			t.Errorf("%s, changed: %v; want %q", name, err, test.user)
		}
	}
}

// TestPINToBeChanged has a token let the user log in, and do nothing else.
func TestPINToBeChanged(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{Function: "C_GenerateKey", Code: pkcs11.CKR_PIN_EXPIRED})
	refused(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}, keystore.ErrUnavailable,
		"C_GenerateKey: CKR_PIN_EXPIRED: the token requires a new PIN first")
}

// TestWriteProtected uses the keys of a token that cannot be written to.
func TestWriteProtected(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	s := open(t, c)
	seal(t, s)
	u := newUse(t, s)
	before := versions(t, s)
	m.Inject(hsmtest.Fault{WriteProtected: true})
	protected := open(t, c)
	k, err := protected.Unseal(keystore.HMACSHA256, u.sealed, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := errors.Join(u.same(k), (&use{s: protected}).exchange()); err != nil {
		t.Error(err)
	}
	_, made := protected.Create("new", keystore.AES128CBC)
	for what, err := range map[string]error{"create": made, "destroy": protected.Destroy("rsa", 1)} {
		if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "the token is write-protected") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after := versions(t, protected); len(after) != len(before) {
		t.Errorf("there were %v, and are %v", before, after)
	}
}
