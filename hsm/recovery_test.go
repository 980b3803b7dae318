package hsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

func totalCalls(calls map[string]uint64) (n uint64) {
	for _, c := range calls {
		n += c
	}
	return n
}

// TestDeadSessions has sessions that are dead until C_Finalize: new ones do not help, and
// detecting that takes few logins.
func TestDeadSessions(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	u := newUse(t, s)
	before := m.Counters().Calls["C_Login"]
	m.Inject(hsmtest.Fault{Function: "C_Sign", Code: pkcs11.CKR_SESSION_HANDLE_INVALID, UntilFinalize: true})
	if err := u.same(u.mac); err != nil {
		t.Errorf("the first operation: %v", err)
	}
	if n := m.Counters().Calls["C_Login"] - before; n > 3 {
		t.Errorf("%d logins", n)
	}
}

// TestMisreadToken has a module that read the token while another process wrote to it: until
// C_Finalize it has no PIN, or is not there.
func TestMisreadToken(t *testing.T) {
	for _, fault := range []hsmtest.Fault{
		{Function: "C_Login", Code: pkcs11.CKR_USER_PIN_NOT_INITIALIZED, UntilFinalize: true},
		{Function: "C_OpenSession", Code: pkcs11.CKR_TOKEN_NOT_RECOGNIZED, UntilFinalize: true},
		{Function: "C_GetSlotList", Code: pkcs11.CKR_GENERAL_ERROR, UntilFinalize: true},
	} {
		t.Run(fault.Function, func(t *testing.T) {
			s, m := newFaulty(t, hsm.Config{})
			u := newUse(t, s)
			m.Inject(fault, hsmtest.Fault{Function: "C_Sign", VanishSessions: true, Times: 1})
			var err error
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if err = u.same(u.mac); err == nil {
					return
				}
			}
			t.Error(err)
		})
	}
}

// TestLogins has a device that fails forever: logins are bounded.
func TestLogins(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	u := newUse(t, s)
	before := m.Counters().Calls["C_Login"]
	m.Inject(hsmtest.Fault{Function: "C_Sign", Code: pkcs11.CKR_SESSION_HANDLE_INVALID})
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if err := u.same(u.mac); !errors.Is(err, keystore.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if n := m.Counters().Calls["C_Login"] - before; n > 12 {
		t.Errorf("%d logins in 3 s", n)
	}
}

// TestGarbage returns impossible lengths and counts.
func TestGarbage(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{Wait: 300 * time.Millisecond})
	u := newUse(t, s)
	for _, length := range []uint{0, 1, 1 << 28, 1 << 47, ^uint(0), ^uint(0) - 1} {
		for _, function := range []string{"C_FindObjects", "C_GetAttributeValue", "C_Sign", "C_Encrypt", "C_Decrypt", "C_WrapKey", "C_GetSlotList"} {
			m.Inject(hsmtest.Fault{Function: function, Length: &length})
			u.run(t, function, false)
			if _, err := s.List(); err != nil && !errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrNotFound) {
				t.Errorf("%s tells %#x: list: %v", function, length, err)
			}
			m.Clear()
			u.recovered(t, function, m)
		}
	}
}

// TestOtherToken replaces the token by another one, with the same label, and
// with the same serial number too.
func TestOtherToken(t *testing.T) {
	for _, serial := range []bool{false, true} {
		t.Run(fmt.Sprint(serial), func(t *testing.T) {
			token := softhsm.Temp(t)
			m := hsmtest.New(t, token.Module)
			if err := hsm.InitToken(token.Module, "other", []byte("12345678"), readPIN(t, token)); err != nil {
				t.Fatal(err)
			}
			at := func(label string) hsm.Config {
				return hsm.Config{URI: (&hsm.URI{Token: label, ModulePath: m.Path}).String(), PIN: token.PIN}
			}
			other := open(t, at("other"))
			seal(t, other)
			if _, err := other.Create("mac", keystore.HMACSHA256); err != nil {
				t.Fatal(err)
			}
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			s := open(t, at(token.Label))
			seal(t, s)
			v, err := s.Create("mac", keystore.HMACSHA256)
			if err != nil {
				t.Fatal(err)
			}
			want, err := v.Key.(keystore.MAC).Sum(nil)
			if err != nil {
				t.Fatal(err)
			}
			m.Inject(hsmtest.Fault{Token: token.Label, Replace: "other", SameLabel: true, SameSerial: serial})
			for range 3 {
				if tag, err := v.Key.(keystore.MAC).Sum(nil); !errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("same serial %t: another token: %x, %v", serial, tag, err)
				}
				if _, err := s.Lookup("msl-seal-session"); !errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("same serial %t: look up in another token: %v", serial, err)
				}
			}
			m.Clear()
			time.Sleep(600 * time.Millisecond)
			if tag, err := v.Key.(keystore.MAC).Sum(nil); err != nil || !bytes.Equal(tag, want) {
				t.Errorf("same serial %t: our token is back: %v", serial, err)
			}
		})
	}
}

func readPIN(t *testing.T, token *softhsm.Token) []byte {
	t.Helper()
	b, err := os.ReadFile(strings.TrimPrefix(string(token.PIN), "file:"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b)
}

// TestDeniedAfterQuiet has a module make the first object after a quiet time, which has no
// name, and return an error: nothing is left of it once the keys of its session are
// closed, and none of them is lost.
func TestDeniedAfterQuiet(t *testing.T) {
	for _, function := range []string{"C_GenerateKey", "C_CreateObject", "C_UnwrapKey", "C_GenerateKeyPair"} {
		t.Run(function, func(t *testing.T) {
			token := softhsm.Temp(t)
			m := hsmtest.New(t, token.Module)
			s := open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
			seal(t, s)
			key, err := s.Generate(keystore.HMACSHA256)
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := s.Seal(key, nil)
			if err != nil {
				t.Fatal(err)
			}
			m.Inject(hsmtest.Fault{Function: function, Code: pkcs11.CKR_DEVICE_ERROR, Times: 1, After: true})
			made := []keystore.Key{key}
			for _, op := range []func() (keystore.Key, error){
				func() (keystore.Key, error) { return s.Generate(keystore.AES128CBC) },
				func() (keystore.Key, error) { return s.Import(keystore.AES128CBC, make([]byte, 16)) },
				func() (keystore.Key, error) { return s.Unseal(keystore.HMACSHA256, sealed, nil) },
				func() (keystore.Key, error) { return s.Generate(keystore.RSAUnwrap2048) },
			} {
				k, err := op()
				if err != nil {
					t.Fatal(err)
				}
				made = append(made, k)
			}
			if n := m.Counters().Fired; n != 1 {
				t.Fatalf("%d faults", n)
			}
			if _, err := key.(keystore.MAC).Sum(nil); err != nil {
				t.Errorf("a key of before: %v", err)
			}
			for _, k := range made {
				k.Close()
			}
			var n hsmtest.Counters
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if n = m.Counters(); n.SessionObjects == 0 {
					break
				}
			}
			if st := s.Stats(); n.SessionObjects != 0 || st.Objects != 0 || n.Sessions != st.Sessions {
				t.Errorf("left: %d sessions and %d objects, %+v", n.Sessions, n.SessionObjects, st)
			}
		})
	}
}
