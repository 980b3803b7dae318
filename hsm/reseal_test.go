package hsm_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// longKeys are the algorithms of keys that are sealed for long.
var longKeys = []keystore.Algorithm{keystore.AES128CBC, keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESWrap128, keystore.AESCMAC128, keystore.AES256CBC}

// trustingStore is a store with sealing keys for trusted wrapping, which are not trusted yet.
func trustingStore(t testing.TB) (*hsm.Store, *softhsm.Token) {
	t.Helper()
	token := softhsm.Temp(t)
	s := open(t, hsm.Config{URI: token.URI, PIN: token.PIN, TrustedWrapping: true})
	seal(t, s)
	return s, token
}

// rotateTrusted makes the next versions of the sealing keys.
func rotateTrusted(t testing.TB, s *hsm.Store, soPIN []byte) {
	t.Helper()
	for label, a := range map[string]keystore.Algorithm{"msl-seal-session": keystore.SealSession256, "msl-seal-wrapping": keystore.SealWrapping256} {
		if _, err := s.CreateTrusted(label, a, soPIN); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Create("msl-seal-mac", keystore.SealMAC256); err != nil {
		t.Fatal(err)
	}
}

// sealNew seals a new key of each algorithm, and returns what each makes of data.
func sealNew(t testing.TB, s *hsm.Store) (blobs, marks map[keystore.Algorithm][]byte) {
	t.Helper()
	blobs, marks = map[keystore.Algorithm][]byte{}, map[keystore.Algorithm][]byte{}
	for _, a := range longKeys {
		k, err := s.Generate(a)
		if err != nil {
			t.Fatal(err)
		}
		marks[a] = makes(t, k)
		if blobs[a], err = s.Seal(k, []byte(a.String())); err != nil {
			t.Fatal(err)
		}
		k.Close()
	}
	return blobs, marks
}

// makes is what a key makes of the same data.
func makes(t testing.TB, k keystore.Key) []byte {
	t.Helper()
	var out []byte
	var err error
	switch k := k.(type) {
	case keystore.DataWrapper:
		out, err = k.WrapData(make([]byte, 16))
	case keystore.MAC:
		out, err = k.Sum([]byte("data"))
	case keystore.Cipher:
		out, err = k.Encrypt(make([]byte, 16), make([]byte, 32))
	default:
		t.Fatalf("%T", k)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestReseal brings what is sealed to newer versions, one after another.
func TestReseal(t *testing.T) {
	s, token := trustingStore(t)
	blobs, marks := sealNew(t, s)
	for version := range uint32(2) {
		rotateTrusted(t, s, token.SOPIN)
		for _, a := range longKeys {
			again, err := s.Reseal(blobs[a], []byte(a.String()))
			if err != nil {
				t.Fatalf("%v: %v", a, err)
			}
			if sealed, err := keystore.ParseSealed(again); err != nil || sealed.KEKVersion != version+2 {
				t.Errorf("%v: %v, %v", a, sealed.KEKVersion, err)
			}
			if same, err := s.Reseal(again, []byte(a.String())); err != nil || !bytes.Equal(same, again) {
				t.Errorf("%v twice: %v", a, err)
			}
			if _, err := s.Reseal(blobs[a], []byte("another")); !errors.Is(err, keystore.ErrForeign) {
				t.Errorf("%v for another context: %v", a, err)
			}
			blobs[a] = again
		}
		for _, label := range []string{"msl-seal-session", "msl-seal-wrapping", "msl-seal-mac"} {
			if err := s.Destroy(label, version+1); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, a := range longKeys {
		k, err := s.Unseal(a, blobs[a], []byte(a.String()))
		if err != nil {
			t.Fatalf("%v: %v", a, err)
		}
		if !bytes.Equal(makes(t, k), marks[a]) {
			t.Errorf("%v is another key", a)
		}
		if _, err := s.Seal(k, nil); !errors.Is(err, keystore.ErrLocked) {
			t.Errorf("%v sealed from outside: %v", a, err)
		}
		k.Close()
	}
	if live, _ := s.Live(); live != 0 {
		t.Errorf("%d session objects are left", live)
	}
	want := map[string]bool{"msl-seal-session": true, "msl-seal-wrapping": true, "msl-seal-mac": false}
	all, err := s.List()
	for _, k := range all {
		if k.Trusted != want[k.Label] || k.Reseals != want[k.Label] || len(k.Weaknesses) > 0 || len(k.Notes) > 0 || k.Version != 3 {
			t.Errorf("%+v", k)
		}
	}
	if err != nil || len(all) != 3 {
		t.Error(len(all), err)
	}
}

// TestResealClosed leaves in place what never leaves, and what no trusted key takes.
func TestResealClosed(t *testing.T) {
	s, token := newStore(t)
	closed, _ := sealNew(t, s)
	s.Close()
	s = open(t, hsm.Config{URI: token.URI, PIN: token.PIN, TrustedWrapping: true})
	seal(t, s)
	bound, _ := sealNew(t, s)
	seal(t, s) // which are not trusted
	for _, a := range longKeys {
		for name, blob := range map[string][]byte{"closed": closed[a], "untrusted": bound[a]} {
			if _, err := s.Reseal(blob, []byte(a.String())); !errors.Is(err, keystore.ErrLocked) {
				t.Errorf("%v, %s: %v", a, name, err)
			}
		}
	}
	rotateTrusted(t, s, token.SOPIN)
	for _, a := range longKeys {
		if _, err := s.Reseal(bound[a], []byte(a.String())); err != nil {
			t.Errorf("%v: %v", a, err)
		}
		k, err := s.Unseal(a, closed[a], []byte(a.String()))
		if err != nil {
			t.Errorf("%v: %v", a, err)
			continue
		}
		k.Close()
	}
}

// TestTrustingRefused does not take sealing keys for trusted wrapping where that is not wanted.
func TestTrustingRefused(t *testing.T) {
	s, token := trustingStore(t)
	s.Close()
	_, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
	if !errors.Is(err, keystore.ErrWeakKey) {
		t.Error(err)
	}
	open(t, hsm.Config{URI: token.URI, PIN: token.PIN, AllowWeak: []string{"trusted-wrapping"}})
}
