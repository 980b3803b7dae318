package split_test

import (
	"bytes"
	"crypto"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/keystore/split"
)

// open opens a store over a device in memory, with its sealing keys.
func open(t *testing.T) (*split.Store, *soft.Store) {
	t.Helper()
	device := soft.New()
	s := split.Config{}.New(device)
	rotate(t, s, keystore.SealingRoles()...)
	return s, device
}

// rotate makes the next versions of keys.
func rotate(t *testing.T, s *split.Store, roles ...keystore.Role) {
	t.Helper()
	for _, role := range roles {
		if _, err := s.Create(role.Label(keystore.DefaultPrefix), role.Algorithm()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConformance runs the suite of all key stores. The command's tests have messages go
// through such a store every day.
func TestConformance(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("it makes many RSA keys: set MSL_SOAK=1")
	}
	keystoretest.TestStore(t, func(t *testing.T) keystore.Store { s, _ := open(t); return s }, keystore.Algorithms()...)
}

func value[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func tag(t *testing.T, k keystore.Key) []byte {
	t.Helper()
	return value[[]byte](t)(k.(keystore.MAC).Sum([]byte("data")))
}

// TestSeal seals keys, and unseals them in another store over the same device.
func TestSeal(t *testing.T) {
	s, device := open(t)
	raw := bytes.Repeat([]byte{0x42}, 32)
	k := value[keystore.Key](t)(s.Import(keystore.HMACSHA256, raw))
	want := tag(t, k)
	if n, _ := device.Live(); n != 0 {
		t.Errorf("%d session keys in the device", n)
	}
	blob := value[[]byte](t)(s.Seal(k, []byte("context")))
	if bytes.Contains(blob, raw[:8]) {
		t.Error("the blob holds the key in clear")
	}
	if again := value[[]byte](t)(s.Reseal(blob, []byte("context"))); bytes.Equal(again, blob) {
		t.Error("sealed twice, the same blob")
	}
	if _, err := s.Seal(k, nil); !errors.Is(err, keystore.ErrLocked) {
		t.Errorf("sealed twice: %v", err)
	}
	if _, err := device.Unseal(keystore.HMACSHA256, blob, []byte("context")); !errors.Is(err, keystore.ErrForeign) {
		t.Errorf("the device's own sealing keys opened it: %v", err)
	}
	later := split.Config{}.New(device)
	if u := value[keystore.Key](t)(later.Unseal(keystore.HMACSHA256, blob, []byte("context"))); !bytes.Equal(tag(t, u), want) {
		t.Error("unsealed, it is another key")
	} else if _, err := later.Seal(u, nil); !errors.Is(err, keystore.ErrLocked) {
		t.Errorf("what was unsealed is sealed: %v", err)
	}
	for i := range blob {
		forged := bytes.Clone(blob)
		forged[i] ^= 1
		if _, err := s.Unseal(keystore.HMACSHA256, forged, []byte("context")); !errors.Is(err, keystore.ErrForeign) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if _, err := s.Unseal(keystore.HMACSHA256, blob, nil); !errors.Is(err, keystore.ErrForeign) {
		t.Errorf("without the context: %v", err)
	}
}

// TestVersions has sealing keys rotate, also at another server.
func TestVersions(t *testing.T) {
	s, device := open(t)
	other := split.Config{}.New(device)
	seal := func(s *split.Store) (blob []byte, version uint32) {
		k := value[keystore.Key](t)(s.Generate(keystore.AES128CBC))
		blob = value[[]byte](t)(s.Seal(k, nil))
		return blob, value[keystore.Sealed](t)(keystore.ParseSealed(blob)).KEKVersion
	}
	if _, v := seal(other); v != 1 {
		t.Errorf("sealed by version %d", v)
	}
	rotate(t, s, keystore.RoleSealSession)
	if _, v := seal(s); v != 1 {
		t.Errorf("sealed by version %d, of which there is no MAC key", v)
	}
	rotate(t, s, keystore.RoleSealWrapping, keystore.RoleSealMAC)
	blob, v := seal(s)
	if v != 2 {
		t.Errorf("sealed by version %d", v)
	}
	if _, err := other.Unseal(keystore.AES128CBC, blob, nil); err != nil {
		t.Errorf("another server does not find the new version: %v", err)
	}
	if err := s.SealWith("msl-seal-session", 1); err != nil {
		t.Fatal(err)
	}
	if _, v := seal(s); v != 1 {
		t.Errorf("sealed by version %d, and 1 was chosen", v)
	}
	if err := s.Destroy("msl-seal-session", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unseal(keystore.AES128CBC, blob, nil); !errors.Is(err, keystore.ErrForeign) {
		t.Errorf("by a version that was destroyed: %v", err)
	}
}

// TestSealDestroyed has another server destroy the version that seals, or its MAC key.
func TestSealDestroyed(t *testing.T) {
	for _, role := range []keystore.Role{keystore.RoleSealSession, keystore.RoleSealMAC} {
		s, device := open(t)
		other := split.Config{}.New(device)
		rotate(t, s, keystore.RoleSealSession, keystore.RoleSealMAC)
		k := value[keystore.Key](t)(s.Generate(keystore.AES128CBC))
		value[[]byte](t)(s.Seal(k, nil))
		if err := other.Destroy(role.Label("msl"), 2); err != nil {
			t.Fatal(err)
		}
		k = value[keystore.Key](t)(s.Generate(keystore.AES128CBC))
		if v := value[keystore.Sealed](t)(keystore.ParseSealed(value[[]byte](t)(s.Seal(k, nil)))).KEKVersion; v != 1 {
			t.Errorf("%s destroyed: sealed with version %d", role, v)
		}
	}
}

// TestStored checks what is in the device, and what is reported about it.
func TestStored(t *testing.T) {
	s, device := open(t)
	for label, a := range map[string]keystore.Algorithm{"psk-wrapping": keystore.AESUnwrap128, "data": keystore.AES128CBC} {
		value[keystore.Version](t)(s.Create(label, a))
	}
	var there, here []string
	for _, k := range value[[]keystore.Info](t)(device.List()) {
		there = append(there, k.Label+" "+k.Algorithm.String())
	}
	for _, k := range value[[]keystore.Info](t)(s.List()) {
		here = append(here, k.Label+" "+k.Algorithm.String()+" "+k.Stored)
	}
	wantThere := []string{
		"data aes128-cbc", "memory:msl-seal-mac hmac-sha256", "memory:msl-seal-session aes256-cbc", "memory:msl-seal-wrapping aes256-cbc",
		"memory:psk-wrapping aes128-reveal", "msl-seal-mac seal-mac", "msl-seal-session seal-session", "msl-seal-wrapping seal-wrapping",
	}
	wantHere := []string{
		"data aes128-cbc ", "msl-seal-mac seal-mac memory:msl-seal-mac, hmac-sha256", "msl-seal-session seal-session memory:msl-seal-session, aes256-cbc",
		"msl-seal-wrapping seal-wrapping memory:msl-seal-wrapping, aes256-cbc", "psk-wrapping aes128-unwrap memory:psk-wrapping, aes128-reveal",
	}
	if !slices.Equal(there, wantThere) || !slices.Equal(here, wantHere) {
		t.Errorf("in the device %q, told %q", there, here)
	}
	if err := s.Destroy("psk-wrapping", 0); err != nil {
		t.Error(err)
	}
	if _, err := s.Lookup("psk-wrapping"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("destroyed: %v", err)
	}
}

// TestPair has a pair in the device unwrap what comes into memory.
func TestPair(t *testing.T) {
	s, device := open(t)
	u := value[keystore.Version](t)(s.Create("pair", keystore.RSAUnwrap2048)).Key.(keystore.Unwrapper)
	if there := value[[]keystore.Version](t)(device.Lookup("memory:pair"))[0].Key.Algorithm(); there != keystore.RSADecrypt2048 {
		t.Errorf("%v in the device", there)
	}
	k := value[keystore.Key](t)(s.Generate(keystore.HMACSHA256))
	wrapped := value[[]byte](t)(s.WrapFor(u.(interface{ Public() crypto.PublicKey }).Public(), k))
	here := value[keystore.Key](t)(u.Unwrap(keystore.HMACSHA256, wrapped))
	if !bytes.Equal(tag(t, here), tag(t, k)) {
		t.Error("unwrapped another key")
	}
	if n, _ := device.Live(); n != 0 {
		t.Errorf("%d session keys in the device", n)
	}
	if _, err := s.Seal(here, nil); !errors.Is(err, keystore.ErrLocked) {
		t.Errorf("what a provisioned key unwrapped is sealed: %v", err)
	}
	if _, err := u.Unwrap(keystore.AES128CBC, wrapped); !errors.Is(err, keystore.ErrBadData) {
		t.Errorf("as a shorter key: %v", err)
	}
}

// TestWrongKeys refuses labels and keys that are for something else.
func TestWrongKeys(t *testing.T) {
	s, device := open(t)
	value[keystore.Version](t)(device.Create("unwraps", keystore.AESUnwrap128))
	value[keystore.Version](t)(device.Create("memory:odd", keystore.ECDSAP256))
	value[keystore.Version](t)(s.Create("data", keystore.AES128CBC))
	value[keystore.Version](t)(s.Create("psk", keystore.AESUnwrap128))
	for label, want := range map[string]error{"unwraps": keystore.ErrWrongKey, "odd": keystore.ErrWrongKey, "none": keystore.ErrNotFound} {
		if _, err := s.Lookup(label); !errors.Is(err, want) {
			t.Errorf("look up %s: %v", label, err)
		}
	}
	for _, test := range []struct {
		label string
		a     keystore.Algorithm
		want  error
	}{
		{"memory:data", keystore.AES128CBC, keystore.ErrWrongKey},
		{"msl-seal-mac", keystore.HMACSHA256, keystore.ErrWrongKey},
		{"mine", keystore.SealMAC256, keystore.ErrWrongKey},
		{"data", keystore.AESUnwrap128, keystore.ErrExists},
		{"psk", keystore.AES128CBC, keystore.ErrExists},
		{"psk", keystore.RSAUnwrap2048, keystore.ErrExists},
	} {
		if v, err := s.Create(test.label, test.a); !errors.Is(err, test.want) {
			t.Errorf("create %s for %v: version %d, %v", test.label, test.a, v.Number, err)
		}
	}
}

// TestMissing names keys that are not there as their users do, and not as the device would.
func TestMissing(t *testing.T) {
	s := split.Config{}.New(soft.New())
	k := value[keystore.Key](t)(s.Generate(keystore.HMACSHA256))
	for what, do := range map[string]func() error{
		"look up":             func() error { _, err := s.Lookup("msl-audit"); return err },
		"look up what seals":  func() error { _, err := s.Lookup("msl-seal-mac"); return err },
		"destroy":             func() error { return s.Destroy("msl-audit", 0) },
		"destroy a version":   func() error { return s.Destroy("msl-audit", 2) },
		"destroy what seals":  func() error { return s.Destroy("msl-seal-mac", 0) },
		"seal without a key":  func() error { _, err := s.Seal(k, nil); return err },
		"look up what is not": func() error { _, err := s.Lookup(""); return err },
	} {
		if err := do(); !errors.Is(err, keystore.ErrNotFound) || strings.Contains(err.Error(), "memory:") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzUnseal unseals what nobody sealed.
func FuzzUnseal(f *testing.F) {
	s := split.Config{}.New(soft.New())
	for _, role := range keystore.SealingRoles() {
		if _, err := s.Create(role.Label(keystore.DefaultPrefix), role.Algorithm()); err != nil {
			f.Fatal(err)
		}
	}
	k, err := s.Generate(keystore.AES128CBC)
	if err != nil {
		f.Fatal(err)
	}
	blob, err := s.Seal(k, []byte("context"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(keystore.AES128CBC), blob)
	f.Add(byte(keystore.AESWrap128), blob[:40])
	f.Fuzz(func(t *testing.T, a byte, blob []byte) {
		if k, err := s.Unseal(keystore.Algorithm(a), blob, []byte("another")); !errors.Is(err, keystore.ErrForeign) {
			t.Errorf("%v, %v", k, err)
		}
		if again, err := s.Reseal(blob, nil); !errors.Is(err, keystore.ErrForeign) {
			t.Errorf("%x, %v", again, err)
		}
	})
}
