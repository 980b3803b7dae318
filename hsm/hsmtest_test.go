package hsm_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// newFaulty opens a throwaway token with sealing keys, through a module that
// misbehaves on command.
func newFaulty(t testing.TB, c hsm.Config) (*hsm.Store, *hsmtest.Module) {
	t.Helper()
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c.URI, c.PIN = (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), token.PIN
	s := open(t, c)
	seal(t, s)
	return s, m
}

// someCodes are codes of every class, one of a vendor and an undefined one.
var someCodes = []uint{
	pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_ARGUMENTS_BAD,
	pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_USER_NOT_LOGGED_IN,
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_MECHANISM_INVALID,
	pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_UNEXTRACTABLE,
	pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_OPERATION_ACTIVE, pkcs11.CKR_DEVICE_MEMORY,
	pkcs11.CKR_WRAPPED_KEY_INVALID, pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_PIN_INCORRECT, 0x80000000, 0x80001234, 0xffffffff,
}

// versions are the keys of a token by label.
func versions(t *testing.T, s *hsm.Store) map[string][]uint32 {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]uint32{}
	for _, i := range all {
		keys[i.Label] = append(keys[i.Label], i.Version)
	}
	return keys
}

// TestFaultsOfAdministration fails each call of each function that makes and destroys
// provisioned keys, once: announced keys exist, and all else is unchanged.
func TestFaultsOfAdministration(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	for label, a := range map[string]keystore.Algorithm{"pair": keystore.ECDSAP256, "mac": keystore.HMACSHA256} {
		if _, err := s.Create(label, a); err != nil {
			t.Fatal(err)
		}
	}
	operations := map[string]func() (announced string, err error){
		"create":  func() (string, error) { return version(s.Create("new", keystore.AES128CBC)) },
		"rotate":  func() (string, error) { return version(s.Create("msl-seal-wrapping", keystore.SealWrapping256)) },
		"pair":    func() (string, error) { return version(s.Create("pair", keystore.ECDSAP256)) },
		"import":  func() (string, error) { return version(s.Provision("given", keystore.AES128CBC, make([]byte, 16))) },
		"destroy": func() (string, error) { return "destroyed", s.Destroy("mac", 1) },
	}
	functions := []string{"C_GetAttributeValue", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_DestroyObject",
		"C_GenerateKey", "C_GenerateKeyPair", "C_CreateObject", "C_UnwrapKey", "C_WrapKey", "C_Encrypt", "C_Sign"}
	codes := someCodes
	if testing.Short() || !soak() {
		codes = []uint{pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, 0x80000000}
	}
	step, tried := 3, 0
	if soak() {
		step = 1
	}
	for _, name := range slices.Sorted(maps.Keys(operations)) {
		try := func(fault hsmtest.Fault) (calls map[string]uint64) {
			before := versions(t, s)
			fault.Code = codes[tried%len(codes)]
			tried++
			m.Inject(fault)
			former := m.Counters().Calls
			announced, err := operations[name]()
			calls = m.Counters().Calls
			m.Clear()
			for function, n := range former {
				calls[function] -= n
			}
			checkKeys(t, fmt.Sprintf("%s, %s call %d = %#x, %d times, after %t", name, fault.Function, fault.Skip+1, fault.Code, fault.Times, fault.After), fault.Code, s, before, name, announced, err)
			restoreKeys(t, s, name, announced, err)
			return calls
		}
		calls := try(hsmtest.Fault{Function: "C_Finalize"}) // which it does not call
		for _, function := range functions {
			for skip := 0; skip < int(calls[function]); skip += step {
				try(hsmtest.Fault{Function: function, Skip: skip, Times: 1 + tried%2*3, After: skip > 0 && tried%3 == 0})
				if skip == 0 { // it may be the only call
					try(hsmtest.Fault{Function: function, Times: 1, After: true})
				}
			}
		}
	}
	t.Logf("%d faults", tried)
}

// version names what was announced.
func version(v keystore.Version, err error) (string, error) { return fmt.Sprint(v.Number), err }

// labelsOf are the keys that an operation changes.
var labelsOf = map[string]string{"create": "new", "rotate": "msl-seal-wrapping", "pair": "pair", "import": "given", "destroy": "mac"}

func checkKeys(t *testing.T, fault string, code uint, s *hsm.Store, before map[string][]uint32, name, announced string, err error) {
	t.Helper()
	after := versions(t, s)
	changed := labelsOf[name]
	for label, old := range before {
		if label == changed && name == "destroy" {
			continue
		}
		for _, v := range old {
			if !slices.Contains(after[label], v) {
				t.Errorf("%s: %s version %d is gone (%v)", fault, label, v, err)
			}
		}
	}
	switch {
	case name == "destroy" && err == nil && len(after[changed]) > 0:
		t.Errorf("%s: told to be destroyed, and there", fault)
	case name != "destroy" && err == nil && !slices.ContainsFunc(after[changed], func(v uint32) bool { return fmt.Sprint(v) == announced }):
		t.Errorf("%s: version %s was announced, there are %v", fault, announced, after[changed])
	case name != "destroy" && err == nil && len(after[changed]) != len(before[changed])+1:
		t.Errorf("%s: there were %v, and are %v", fault, before[changed], after[changed])
	case name != "destroy" && err != nil && len(after[changed]) > len(before[changed])+1:
		t.Errorf("%s: failed (%v), there were %v and are %v", fault, err, before[changed], after[changed])
	}
	if errors.Is(err, keystore.ErrWeakKey) && code != pkcs11.CKR_ATTRIBUTE_TYPE_INVALID { // which means that it is not known
		t.Errorf("%s: a fault is told as a weakness: %v", fault, err)
	}
}

// restoreKeys undoes an operation.
func restoreKeys(t *testing.T, s *hsm.Store, name, announced string, err error) {
	t.Helper()
	for label, all := range versions(t, s) {
		if label != labelsOf[name] {
			continue
		}
		for _, v := range all {
			if (name == "rotate" || name == "pair") && v == 1 {
				continue
			}
			if name == "destroy" {
				continue
			}
			if err := s.Destroy(label, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	if name == "destroy" && len(versions(t, s)["mac"]) == 0 {
		if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFaultsOfUse fails each function that a message needs, with every code: the result is
// correct, or an error that blames the device, never keys or data. When the fault is over,
// everything works as before.
func TestFaultsOfUse(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{Wait: 500 * time.Millisecond})
	u := newUse(t, s)
	functions := []string{"C_OpenSession", "C_Login", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_SignInit", "C_Sign",
		"C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey", "C_CreateObject", "C_DestroyObject",
		"C_GetAttributeValue", "C_SetAttributeValue", "C_FindObjectsInit", "C_FindObjects", "C_GetSessionInfo"}
	n := 0
	for i, function := range functions {
		for j, code := range someCodes {
			for mode, fault := range map[string]hsmtest.Fault{
				"once": {Times: 1}, "after": {Times: 1, After: true}, "twice": {Times: 2}, "always": {},
			} {
				if !soak() && (i+j+len(mode))%7 != 0 {
					continue
				}
				n++
				fault.Function, fault.Code = function, code
				what := fmt.Sprintf("%s = %#x %s", function, code, mode)
				m.Inject(fault)
				u.run(t, what, mode == "once")
				m.Clear()
				u.recovered(t, what, m)
			}
		}
	}
	t.Logf("%d faults", n)
}

// A use does what a server and a client do with keys.
type use struct {
	s       *hsm.Store
	mac     keystore.MAC
	tag     []byte
	sealed  []byte
	unwrap  keystore.Unwrapper
	wrapped []byte
}

func newUse(t *testing.T, s *hsm.Store) *use {
	t.Helper()
	v, err := s.Create("rsa", keystore.RSAUnwrap2048)
	if err != nil {
		t.Fatal(err)
	}
	return useOf(t, s, v)
}

// useOf is newUse with a pair that is there.
func useOf(t *testing.T, s *hsm.Store, v keystore.Version) *use {
	t.Helper()
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	u := &use{s: s}
	if u.sealed, err = s.Seal(k, nil); err != nil {
		t.Fatal(err)
	}
	u.mac = k.(keystore.MAC)
	if u.tag, err = u.mac.Sum(nil); err != nil {
		t.Fatal(err)
	}
	u.unwrap = v.Key.(keystore.Unwrapper)
	u.wrapped = encryptOAEP(t, v.Key, make([]byte, 32))
	return u
}

// run does everything once. Failures are those of the device.
func (u *use) run(t *testing.T, what string, single bool) {
	t.Helper()
	for name, op := range map[string]func() error{"exchange": u.exchange, "returning": u.returning, "unwrap": u.unwrapping} {
		err := op()
		switch {
		case err == nil:
		case single:
			t.Errorf("%s: a single fault of a call fails the %s: %v", what, name, err)
		case errors.Is(err, keystore.ErrBadData) || errors.Is(err, keystore.ErrForeign) || errors.Is(err, keystore.ErrWeakKey) || errors.Is(err, keystore.ErrWrongKey):
			t.Errorf("%s: %s: a fault of the device is told as %v", what, name, err)
		case !errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrBusy) && !errors.Is(err, keystore.ErrLost) && !errors.Is(err, keystore.ErrPIN):
			t.Errorf("%s: %s: %v", what, name, err)
		}
	}
}

// exchange makes session keys for a new device.
func (u *use) exchange() error {
	k, err := u.s.Generate(keystore.AES128CBC)
	if err != nil {
		return err
	}
	defer k.Close()
	if _, err := u.s.WrapFor(peerKey(), k); err != nil {
		return err
	}
	if _, err := u.s.Seal(k, nil); err != nil {
		return err
	}
	c := k.(keystore.Cipher)
	iv := make([]byte, 16)
	b, err := c.Encrypt(iv, []byte("data"))
	if err != nil {
		return err
	}
	if b, err = c.Decrypt(iv, b); err == nil && string(b) != "data" {
		err = errors.New("another plaintext")
	}
	return err
}

// returning unseals the keys of a device.
func (u *use) returning() error {
	k, err := u.s.Unseal(keystore.HMACSHA256, u.sealed, nil)
	if err != nil {
		return err
	}
	defer k.Close()
	return u.same(k)
}

func (u *use) same(k keystore.Key) error {
	tag, err := k.(keystore.MAC).Sum(nil)
	if err == nil && string(tag) != string(u.tag) {
		err = errors.New("another tag")
	}
	return err
}

// unwrapping opens what a peer wrapped.
func (u *use) unwrapping() error {
	k, err := u.unwrap.Unwrap(keystore.HMACSHA256, u.wrapped)
	if err != nil {
		return err
	}
	return k.Close()
}

// recovered checks that everything works again in time, and that nothing is left.
func (u *use) recovered(t *testing.T, what string, m *hsmtest.Module) {
	t.Helper()
	var err error
	deadline := time.Now().Add(2 * time.Second)
	for {
		if err = errors.Join(u.exchange(), u.returning(), u.unwrapping(), u.same(u.mac)); err == nil && u.clean(m) {
			return
		}
		if time.Now().After(deadline) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: 2 s after the fault: %v; %+v, in the module %d sessions and %d objects", what, err, u.s.Stats(), m.Counters().Sessions, m.Counters().SessionObjects)
}

// clean reports whether no object is left but the one that is kept.
func (u *use) clean(m *hsmtest.Module) bool {
	st := u.s.Stats()
	return st.Objects <= 1 && st.InUse == 0 && m.Counters().SessionObjects <= 1
}
