package hsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestRenewPIN changes the PIN of a token under a store: after it was refused, the store
// works again with the PIN that the file has then, and the one that was refused is never
// given twice.
func TestRenewPIN(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	right := readPIN(t, token)
	file := filepath.Join(t.TempDir(), "pin")
	renew := func(s *hsm.Store, pin string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file, []byte(pin), 0o600), s.RenewPIN("")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, right, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String() + "&pin-source=file:" + file})
	seal(t, s)
	v, err := s.Create("mac", keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	works := func() error { _, err := v.Key.(keystore.MAC).Sum(nil); return err }

	renew(s, "another")
	m.Inject(hsmtest.Fault{Function: "C_Sign", VanishSessions: true, Times: 1})
	if err := works(); !errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrPIN) {
		t.Fatalf("with another PIN: %v", err)
	}
	m.Clear()
	logins := s.Calls()["C_Login"]
	renew(s, "another")
	time.Sleep(200 * time.Millisecond) // the pause after a recovery that failed
	if err := works(); err == nil || s.Calls()["C_Login"] != logins {
		t.Errorf("%d logins with a PIN that was refused: %v", s.Calls()["C_Login"]-logins, err)
	}
	renew(s, string(right))
	for deadline := time.Now().Add(10 * time.Second); works() != nil && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	if err := works(); err != nil {
		t.Errorf("with the right PIN: %v", err)
	}

	if err := errors.Join(os.Remove(file)); err != nil {
		t.Fatal(err)
	}
	if err := s.RenewPIN(""); !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("without a file: %v", err)
	}
	if err := works(); err != nil {
		t.Errorf("after a file that cannot be read: %v", err)
	}
}

// TestRefresh sees the version that another program made.
func TestRefresh(t *testing.T) {
	token := softhsm.Temp(t)
	config := hsm.Config{URI: token.URI, PIN: token.PIN}
	s, other := open(t, config), open(t, config)
	seal(t, s)
	if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		ring, err := s.Lookup("mac")
		if err != nil {
			t.Fatal(err)
		}
		return len(ring)
	}
	if n := count(); n != 1 {
		t.Fatalf("%d versions", n)
	}
	if _, err := other.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	s.Refresh()
	if n := count(); n != 2 {
		t.Errorf("%d versions after another program made one", n)
	}
	if err := other.Destroy("mac", 1); err != nil {
		t.Fatal(err)
	}
	s.Refresh()
	if n := count(); n != 1 {
		t.Errorf("%d versions after another program destroyed one", n)
	}
}
