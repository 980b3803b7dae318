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

// TestCallsOfStart counts calls into the module. A server has these keys.
func TestCallsOfStart(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	s := open(t, c)
	seal(t, s)
	keys := []string{"msl-identity", "msl-issuer-encryption", "msl-issuer-mac", "msl-service-encryption", "msl-service-mac"}
	for i, a := range []keystore.Algorithm{keystore.RSASign2048, keystore.AES128CBC, keystore.HMACSHA256, keystore.AES128CBC, keystore.HMACSHA256} {
		if _, err := s.Create(keys[i], a); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := totalCalls(m.Counters().Calls)
	s = open(t, c)
	for _, label := range append(keys, "msl-seal-session", "msl-seal-wrapping", "msl-seal-mac") {
		if _, err := s.Lookup(label); err != nil {
			t.Fatal(err)
		}
	}
	if n := totalCalls(m.Counters().Calls) - before; n > 120 {
		t.Errorf("a start costs %d calls: %v", n, s.Calls())
	} else {
		t.Logf("a start costs %d calls: %v", n, s.Calls())
	}
	ring := map[string]keystore.Key{}
	for _, label := range keys {
		v, err := s.Lookup(label)
		if err != nil {
			t.Fatal(err)
		}
		ring[label] = v[0].Key
	}
	m.Inject(hsmtest.Fault{Function: "C_Sign", VanishSessions: true, Times: 1})
	before = totalCalls(m.Counters().Calls)
	exchange := func() error {
		data := make([]byte, 100)
		if _, err := ring["msl-issuer-mac"].(keystore.MAC).Sum(data); err != nil {
			return err
		}
		if _, err := ring["msl-issuer-encryption"].(keystore.Cipher).Encrypt(data[:16], data); err != nil {
			return err
		}
		k, err := s.Generate(keystore.AES128CBC)
		if err != nil {
			return err
		}
		_, err = s.Seal(k, nil)
		return err
	}
	if err := exchange(); err != nil {
		t.Fatal(err)
	}
	if n := totalCalls(m.Counters().Calls) - before; n > 80 {
		t.Errorf("the first exchange after a recovery costs %d calls: %v", n, m.Counters().Calls)
	} else {
		t.Logf("the first exchange after a recovery costs %d calls", n)
	}
}

// TestFaultsOfOpening fails single calls while a token is opened: Open succeeds, or
// reports a failed device, but never a weak key.
func TestFaultsOfOpening(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	s := open(t, c)
	seal(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	n, opened := 0, 0
	for _, function := range []string{"C_GetAttributeValue", "C_UnwrapKey", "C_WrapKey", "C_GenerateKey", "C_SetAttributeValue", "C_Sign",
		"C_FindObjects", "C_CreateObject", "C_DestroyObject", "C_OpenSession", "C_GetSlotList", "C_GetTokenInfo"} {
		for skip := 0; skip < 60; skip += 3 {
			fault := hsmtest.Fault{Function: function, Code: someCodes[n%len(someCodes)], Skip: skip, Times: 1 + n%4}
			n++
			m.Inject(fault)
			s, err := hsm.Open(c)
			fired := m.Counters().Fired
			m.Clear()
			if err == nil {
				opened++
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			} else if errors.Is(err, keystore.ErrWeakKey) && fault.Code != pkcs11.CKR_MECHANISM_INVALID && fault.Code != pkcs11.CKR_FUNCTION_NOT_SUPPORTED {
				t.Errorf("%s call %d = %#x, %d times: %v", function, skip+1, fault.Code, fault.Times, err)
			}
			if fired == 0 {
				break
			}
		}
	}
	t.Logf("%d faults, opened all the same %d times", n, opened)
}

// TestOneFaultOfOpening fails a call once while a token is opened, which leaves an operation
// active in a session or comes of a device short of memory: the token opens.
func TestOneFaultOfOpening(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	s := open(t, c)
	seal(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for function, code := range map[string]uint{
		"C_Sign": pkcs11.CKR_OPERATION_NOT_INITIALIZED, "C_Decrypt": pkcs11.CKR_DEVICE_ERROR, "C_FindObjects": pkcs11.CKR_FUNCTION_REJECTED,
		"C_GetSlotList": pkcs11.CKR_DEVICE_MEMORY, "C_GetTokenInfo": pkcs11.CKR_HOST_MEMORY, "C_OpenSession": pkcs11.CKR_DEVICE_MEMORY,
		"C_Login": pkcs11.CKR_HOST_MEMORY, "C_GetSessionInfo": pkcs11.CKR_DEVICE_MEMORY,
	} {
		for skip, fired := 0, 1; fired > 0; skip++ {
			m.Inject(hsmtest.Fault{Function: function, Code: code, Skip: skip, Times: 1})
			s, err := hsm.Open(c)
			fired = m.Counters().Fired
			if err != nil {
				t.Errorf("%s call %d = %#x: %v", function, skip+1, code, err)
			} else if err := s.Close(); err != nil {
				t.Error(err)
			}
			m.Clear()
		}
	}
}

// TestUntried has a device fail at what the checks need: nothing is said about the module that
// nobody saw.
func TestUntried(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	for function, want := range map[string]string{"C_SignInit": "hmac-sha256: not tried (hsm: C_SignInit: CKR_DEVICE_ERROR)", "C_WrapKey": "wrap-unwrap: not tried (hsm: C_WrapKey: CKR_DEVICE_ERROR)"} {
		m.Inject(hsmtest.Fault{Function: function, Code: pkcs11.CKR_DEVICE_ERROR})
		refused(t, c, keystore.ErrUnavailable, want)
		if _, err := hsm.Open(c); err == nil || strings.Contains(err.Error(), "computes another") || strings.Contains(err.Error(), "unwraps another") {
			t.Errorf("%s: %v", function, err)
		}
	}
}

// TestWeakModule has a module without a protection, and faults that hide it.
func TestWeakModule(t *testing.T) {
	for name, weak := range map[string]hsmtest.Fault{
		"value-unreadable": {Function: "C_GetAttributeValue", Attribute: []uint{pkcs11.CKA_VALUE}, Reveal: true},
	} {
		token := softhsm.Temp(t)
		m := hsmtest.New(t, token.Module)
		c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
		m.Inject(weak)
		if _, err := hsm.Open(c); !errors.Is(err, keystore.ErrWeakKey) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		m.Inject(hsmtest.Fault{Function: "C_GetAttributeValue", Attribute: []uint{pkcs11.CKA_VALUE}, Code: pkcs11.CKR_DEVICE_ERROR}, weak)
		if s, err := hsm.Open(c); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrWeakKey) {
			t.Errorf("%s behind a fault: %v", name, err)
			if err == nil {
				s.Close()
			}
		}
	}
}
