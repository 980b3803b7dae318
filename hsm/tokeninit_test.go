package hsm_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestFaultsOfInitToken fails each call while a token is made. Making it again ends with
// exactly one token of the label, which opens with its PIN.
func TestFaultsOfInitToken(t *testing.T) {
	other := softhsm.Temp(t)
	m := hsmtest.New(t, other.Module)
	pin := readPIN(t, other)
	n := 0
	for _, function := range []string{"C_GetSlotList", "C_GetTokenInfo", "C_InitToken", "C_OpenSession", "C_Login", "C_InitPIN", "C_CloseSession"} {
		for skip, fired := 0, 1; skip < 4 && fired > 0; skip++ {
			if !soak() && skip%3 != 0 { // most are called once
				continue
			}
			for _, after := range []bool{false, true} {
				n++
				label := fmt.Sprintf("made-%d", n)
				what := fmt.Sprintf("%s call %d, after %t", function, skip+1, after)
				m.Inject(hsmtest.Fault{Function: function, Code: pkcs11.CKR_DEVICE_ERROR, Skip: skip, Times: 1, After: after})
				err := hsm.InitToken(m.Path, label, []byte("12345678"), pin)
				fired = m.Counters().Fired
				m.Clear()
				if err != nil {
					err = hsm.InitToken(m.Path, label, []byte("12345678"), pin)
				}
				if err != nil && !errors.Is(err, keystore.ErrExists) {
					t.Errorf("%s: again: %v", what, err)
				}
				s, err := hsm.Open(hsm.Config{URI: (&hsm.URI{Token: label, ModulePath: m.Path}).String(), PIN: other.PIN})
				if err != nil {
					t.Errorf("%s: open: %v", what, err)
					continue
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestLabelWithBlanks makes a token whose label ends with blanks, with which labels are filled up: it
// is found by what it was called, and not made twice.
func TestLabelWithBlanks(t *testing.T) {
	other := softhsm.Temp(t)
	const label = "blanks  "
	for i := range 2 {
		if err := hsm.InitToken(other.Module, label, []byte("12345678"), readPIN(t, other)); errors.Is(err, keystore.ErrExists) != (i == 1) {
			t.Errorf("time %d: %v", i+1, err)
		}
	}
	s, err := hsm.Open(hsm.Config{URI: (&hsm.URI{Token: label, ModulePath: other.Module}).String(), PIN: other.PIN})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestUnmarkedToken has a module not say that tokens are initialized: one with a PIN is used, and not
// taken for a place for another one, whose making would destroy its keys.
func TestUnmarkedToken(t *testing.T) {
	s, token := newStore(t)
	if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{Function: "C_GetTokenInfo", ClearFlags: pkcs11.CKF_TOKEN_INITIALIZED})
	if err := hsm.InitToken(m.Path, "another one", []byte("12345678"), readPIN(t, token)); err != nil {
		t.Log(err)
	}
	s, err := hsm.Open(hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Lookup("mac"); err != nil {
		t.Error(err)
	}
}
