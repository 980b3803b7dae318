package hsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
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

// TestDeadSessions has sessions that are dead until C_Finalize: new ones do not
// help, and few logins are spent on finding out.
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

// TestLogins has a device that fails for ever: logins are bounded.
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

// TestCallsOfStart counts calls into the module. A server has these keys.
func TestCallsOfStart(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: "pkcs11:token=" + token.Label + "?module-path=" + m.Path, PIN: token.PIN}
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
	t.Log(m.Counters().Calls)
	s = open(t, c)
	for _, label := range append(keys, "msl-seal-session", "msl-seal-wrapping", "msl-seal-mac") {
		if _, err := s.Lookup(label); err != nil {
			t.Fatal(err)
		}
	}
	if n := totalCalls(m.Counters().Calls) - before; n > 120 {
		t.Errorf("a start costs %d calls: %v", n, m.Counters().Calls)
	} else {
		t.Logf("a start costs %d calls", n)
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

// TestHang hangs a call of each function: other operations work or fail within the
// wait, and the store closes.
func TestHang(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, function := range []string{"C_Sign", "C_GenerateKey", "C_UnwrapKey", "C_WrapKey", "C_DestroyObject", "C_GetAttributeValue",
		"C_FindObjects", "C_OpenSession", "C_Login", "C_CloseSession", "C_SetAttributeValue", "C_Finalize", "C_Initialize", "C_GetSlotList"} {
		t.Run(function, func(t *testing.T) {
			var log bytes.Buffer
			var mu sync.Mutex
			const wait = 150 * time.Millisecond
			token := softhsm.Temp(t)
			m := hsmtest.New(t, token.Module)
			s, err := hsm.Open(hsm.Config{
				URI: "pkcs11:token=" + token.Label + "?module-path=" + m.Path, PIN: token.PIN,
				Wait: wait, CallTimeout: 300 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&lockedWriter{mu: &mu, w: &log}, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			seal(t, s)
			u := newUse(t, s)
			m.Inject(hsmtest.Fault{Function: function, Hang: true, Times: 1},
				hsmtest.Fault{Function: "C_SignInit", Code: pkcs11.CKR_SESSION_HANDLE_INVALID, Times: 2},
				hsmtest.Fault{Function: "C_EncryptInit", Code: pkcs11.CKR_DEVICE_ERROR, Times: 2, Skip: 4})
			stuck := make(chan error, 20)
			began := time.Now()
			for range 4 {
				go func() { stuck <- u.exchange() }()
				go func() { stuck <- u.returning() }()
			}
			time.Sleep(50 * time.Millisecond)
			for range 3 {
				start := time.Now()
				for _, op := range []func() error{u.exchange, u.returning, func() error { _, err := s.Lookup("rsa"); return err }} {
					within(t, 6*wait, op)
				}
				t.Logf("a round takes %v", time.Since(start))
			}
			time.Sleep(max(0, 500*time.Millisecond-time.Since(began)))
			if m.Counters().Fired > 0 && function != "C_Finalize" && function != "C_CloseSession" {
				start := time.Now()
				err := u.same(u.mac)
				mu.Lock()
				if said := log.String(); !strings.Contains(said, "function="+function) {
					t.Logf("the log does not name it: %q", said)
				}
				mu.Unlock()
				if d := time.Since(start); err != nil && d > wait {
					t.Errorf("long after: %v after %v", err, d)
				}
			}
			start := time.Now()
			err = s.Close()
			if d := time.Since(start); d > 4*wait {
				t.Errorf("closing takes %v: %v", d, err)
			}
			m.Clear() // the calls go on, and end in a store that is closed
			for range 8 {
				<-stuck
			}
			for range 5 { // which Close could not, and a recovery under way may undo
				time.Sleep(50 * time.Millisecond)
				_ = pkcs11.New(token.Module).Finalize()
			}
		})
	}
}

// within runs op, which must end in time.
func within(t *testing.T, limit time.Duration, op func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- op() }()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrBusy) && !errors.Is(err, keystore.ErrLost) {
			t.Error(err)
		}
	case <-time.After(limit):
		// The call that hangs may be its own: at most one is.
		t.Logf("an operation does not end within %v", limit)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// TestGarbage answers lengths and counts that cannot be.
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

// TestOtherToken puts another token in the place of ours, with the same label, and
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
				return hsm.Config{URI: "pkcs11:token=" + label + "?module-path=" + m.Path, PIN: token.PIN}
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
			time.Sleep(1600 * time.Millisecond)
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

// TestFaultsOfOpening fails single calls while a token is opened: Open says that
// the device failed, or works, and calls nothing weak.
func TestFaultsOfOpening(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: "pkcs11:token=" + token.Label + "?module-path=" + m.Path, PIN: token.PIN}
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

// TestWeakModule has a module without a protection, and faults that hide it.
func TestWeakModule(t *testing.T) {
	for name, weak := range map[string]hsmtest.Fault{
		"value-unreadable": {Function: "C_GetAttributeValue", Attribute: []uint{pkcs11.CKA_VALUE}, Reveal: true},
	} {
		token := softhsm.Temp(t)
		m := hsmtest.New(t, token.Module)
		c := hsm.Config{URI: "pkcs11:token=" + token.Label + "?module-path=" + m.Path, PIN: token.PIN}
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

// TestDeniedAfterQuiet has a module deny the first object after a quiet time, which
// has no name: nothing is left of it once the keys of its session are closed, and
// none of them is lost.
func TestDeniedAfterQuiet(t *testing.T) {
	for _, function := range []string{"C_GenerateKey", "C_CreateObject", "C_UnwrapKey", "C_GenerateKeyPair"} {
		t.Run(function, func(t *testing.T) {
			token := softhsm.Temp(t)
			m := hsmtest.New(t, token.Module)
			s := open(t, hsm.Config{URI: "pkcs11:token=" + token.Label + "?module-path=" + m.Path, PIN: token.PIN})
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
