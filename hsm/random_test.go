package hsm_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/mixed"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestRandomFaults has the generator of the token fail, for a while, for good and by
// not returning.
func TestRandomFaults(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	s := open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN, CallTimeout: time.Second, Wait: time.Second})
	random := func() error { return s.Random(make([]byte, 32)) }
	if err := random(); err != nil {
		t.Fatal(err)
	}
	const function = "C_GenerateRandom"
	for _, c := range []struct {
		fault hsmtest.Fault
		want  error
		text  string
	}{
		{hsmtest.Fault{Code: pkcs11.CKR_DEVICE_ERROR, Times: 1}, nil, ""},
		{hsmtest.Fault{Code: pkcs11.CKR_SESSION_HANDLE_INVALID, Times: 1}, nil, ""},
		{hsmtest.Fault{Code: pkcs11.CKR_RANDOM_NO_RNG}, errors.ErrUnsupported, "hsm: C_GenerateRandom: CKR_RANDOM_NO_RNG"},
		{hsmtest.Fault{Code: pkcs11.CKR_FUNCTION_NOT_SUPPORTED}, errors.ErrUnsupported, "CKR_FUNCTION_NOT_SUPPORTED"},
		{hsmtest.Fault{Code: pkcs11.CKR_DEVICE_ERROR}, keystore.ErrUnavailable, "CKR_DEVICE_ERROR"},
		{hsmtest.Fault{Code: pkcs11.CKR_GENERAL_ERROR}, keystore.ErrUnavailable, "CKR_GENERAL_ERROR"},
	} {
		c.fault.Function = function
		m.Inject(c.fault)
		if err := random(); !errors.Is(err, c.want) || c.want != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v: %v", pkcs11.Error(c.fault.Code), err)
		}
		r := mixed.New(s, 0)
		if _, err := r.Read(make([]byte, 16)); !errors.Is(err, c.want) {
			t.Errorf("%v, mixed: %v", pkcs11.Error(c.fault.Code), err)
		}
		r.Close()
		m.Clear()
	}
	m.Inject(hsmtest.Fault{Function: function, Hang: true, Times: 1})
	r := mixed.New(s, 100*time.Millisecond)
	if _, err := r.Read(make([]byte, 16)); !errors.Is(err, mixed.ErrLate) {
		t.Errorf("a call that does not return: %v", err)
	}
	m.Clear()
	r.Close()
}
