package hsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// faultyTrusting opens a token through a module that misbehaves on command, with sealing
// keys for trusted wrapping.
func faultyTrusting(t *testing.T) (hsm.Config, *hsmtest.Module, *softhsm.Token) {
	t.Helper()
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	return hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN, TrustedWrapping: true}, m, token
}

// TestFaultsOfResealing fails each call while keys are sealed again: what comes of it opens
// as the same key, or there is an error that says nothing about the key.
func TestFaultsOfResealing(t *testing.T) {
	c, m, token := faultyTrusting(t)
	s := open(t, c)
	seal(t, s)
	blobs, marks := sealNew(t, s)
	rotateTrusted(t, s, token.SOPIN)
	codes, step, tried := []uint{pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_KEY_NOT_WRAPPABLE, pkcs11.CKR_OBJECT_HANDLE_INVALID}, 4, 0
	functions := []string{"C_UnwrapKey", "C_WrapKey"}
	if soak() {
		codes, step = someCodes, 1
		functions = append(functions, "C_Sign", "C_Encrypt", "C_GetAttributeValue", "C_CreateObject", "C_DestroyObject")
	}
	for _, function := range functions {
		for skip, fired := 0, 1; fired > 0 && skip < 60; skip, tried = skip+step, tried+1 {
			a := longKeys[tried%len(longKeys)]
			fault := hsmtest.Fault{Function: function, Code: codes[tried%len(codes)], Skip: skip, Times: 1, After: tried%3 == 0}
			m.Inject(fault)
			again, err := s.Reseal(blobs[a], []byte(a.String()))
			fired = m.Counters().Fired // none: there is no such call
			m.Clear()
			what := fmt.Sprintf("%v, %s call %d = %#x", a, function, fault.Skip+1, fault.Code)
			if err == nil {
				sameKey(t, what, s, a, again, marks[a])
				continue
			}
			wrong := []error{keystore.ErrForeign, keystore.ErrBadData, keystore.ErrWeakKey, keystore.ErrNotFound}
			if slices.ContainsFunc(wrong, func(w error) bool { return errors.Is(err, w) }) || len(again) > 0 {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	for _, a := range longKeys {
		sameKey(t, "afterwards", s, a, blobs[a], marks[a])
	}
}

// sameKey unseals a key, and compares what it makes.
func sameKey(t *testing.T, what string, s *hsm.Store, a keystore.Algorithm, blob, mark []byte) {
	t.Helper()
	k, err := s.Unseal(a, blob, []byte(a.String()))
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer k.Close()
	if !bytes.Equal(makes(t, k), mark) {
		t.Errorf("%s: another key", what)
	}
}

// TestFaultsOfOfficer fails each call while the security officer makes a trusted key: what
// was announced is there and trusted, and nothing else is.
func TestFaultsOfOfficer(t *testing.T) {
	c, m, token := faultyTrusting(t)
	functions := []string{"C_Logout", "C_CopyObject"}
	skips, codes := 1, []uint{pkcs11.CKR_DEVICE_ERROR}
	if soak() {
		skips, codes = 20, someCodes
		functions = append(functions, "C_Login", "C_OpenSession", "C_GenerateKey", "C_GetAttributeValue", "C_CloseSession")
	}
	for i, function := range functions {
		for skip := range skips {
			s := open(t, c)
			fault := hsmtest.Fault{Function: function, Code: codes[(i+skip)%len(codes)], Skip: skip, Times: 1, After: skip%2 == 1}
			m.Inject(fault)
			v, err := s.CreateTrusted("msl-seal-wrapping", keystore.SealWrapping256, token.SOPIN)
			m.Clear()
			what := fmt.Sprintf("%s call %d = %#x: %v", function, skip+1, fault.Code, err)
			s.Close()
			s = open(t, c)
			all, errList := s.List()
			switch {
			case errList != nil:
				t.Errorf("%s, and then %v", what, errList)
			case err != nil && len(all) > 0, err == nil && (len(all) != 1 || all[0].Version != v.Number || !all[0].Trusted || len(all[0].Weaknesses) > 0):
				t.Errorf("%s: there is %+v", what, all)
			case errors.Is(err, keystore.ErrPIN) && fault.Code != pkcs11.CKR_PIN_INCORRECT:
				t.Error(what)
			}
			if len(all) > 0 {
				if err := s.Destroy("msl-seal-wrapping", 0); err != nil {
					t.Fatal(err)
				}
			}
			s.Close()
		}
	}
}
