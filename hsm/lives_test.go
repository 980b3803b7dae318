package hsm_test

import (
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// unsealed is a store on a module that counts calls, and a key that can be restored.
func unsealed(t *testing.T) (*hsm.Store, *hsmtest.Module, keystore.Key) {
	t.Helper()
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	s := open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
	seal(t, s)
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	if k, err = s.Unseal(keystore.HMACSHA256, sealed, nil); err != nil {
		t.Fatal(err)
	}
	return s, m, k
}

// TestForgottenInRenewal uses a key that was lost while the sessions are opened again: no
// old handle is used afterwards.
func TestForgottenInRenewal(t *testing.T) {
	s, _, k := unsealed(t)
	s.Forget(k)
	if !s.UseInRenewal(k) {
		t.Error("a handle of before was used")
	}
	if _, err := k.(keystore.MAC).Sum(nil); err != nil {
		t.Error(err)
	}
}

// TestForgottenTwice has two users of a lost key: the second one, which is late, does not
// drop the first one's new handle.
func TestForgottenTwice(t *testing.T) {
	s, m, k := unsealed(t)
	s.Forget(k)
	err := s.WhileInUse(k, func() {
		s.Forget(k)
		time.Sleep(300 * time.Millisecond) // for the graves
	})
	if err != nil {
		t.Errorf("the handle in use: %v", err)
	}
	k.Close()
	waitForNone(t, s, m)
}

// TestRetiredSessionEnds opens the sessions again while a retired one still has an
// object: it is closed with that object.
func TestRetiredSessionEnds(t *testing.T) {
	for _, restart := range []bool{false, true} {
		s, m, k := unsealed(t)
		s.Retire(k)
		if err := s.Renew(restart); err != nil {
			t.Fatal(err)
		}
		if _, err := k.(keystore.MAC).Sum(nil); err != nil {
			t.Fatal(err)
		}
		k.Close()
		waitForNone(t, s, m)
	}
}

// TestSameHandles restarts the module, which gives the numbers of sessions again,
// while a place of the pool still has an old one.
func TestSameHandles(t *testing.T) {
	s, m, k := unsealed(t)
	for range 2 {
		letGo := s.HoldAnchor()
		if err := s.Renew(true); err != nil {
			t.Fatal(err)
		}
		letGo()
		made, err := s.Generate(keystore.HMACSHA256)
		if err != nil {
			t.Fatal(err)
		}
		if !s.OriginIsLive(made) {
			t.Error("an object is charged to a session that is gone")
		}
		made.Close()
	}
	k.Close()
	waitForNone(t, s, m)
}

// waitForNone waits until no session object is left, and no session that no pool has.
func waitForNone(t *testing.T, s *hsm.Store, m *hsmtest.Module) {
	t.Helper()
	var n hsmtest.Counters
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if n = m.Counters(); n.SessionObjects == 0 && n.Sessions <= s.Stats().Sessions {
			return
		}
	}
	t.Errorf("left: %d sessions and %d objects, %+v", n.Sessions, n.SessionObjects, s.Stats())
}
