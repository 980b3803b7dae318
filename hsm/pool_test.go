package hsm_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// load has so many goroutines use a key, each so often.
func load(t *testing.T, s *hsm.Store, goroutines, times int) {
	t.Helper()
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	var wait sync.WaitGroup
	for range goroutines {
		wait.Go(func() {
			for range times {
				if _, err := k.(keystore.MAC).Sum(nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// A load that the first sessions cannot take opens more of them if the module is slow, up
// to what it allows. The module says how many are open.
func TestSessionsFollowLoad(t *testing.T) {
	const anchors = 2
	slow := hsmtest.Fault{Delay: 2 * time.Millisecond}
	for name, c := range map[string]struct {
		sessions    int
		faults      []hsmtest.Fault
		least, most int
	}{
		"slow":                          {0, []hsmtest.Fault{slow}, 12, 128 + 16},
		"slow, bounded":                 {6, []hsmtest.Fault{slow}, 5, 6 + anchors},
		"slow, of a token with 10":      {0, []hsmtest.Fault{{MaxSessions: 10}, slow}, 5, 10},
		"slow, of a token that hides 8": {0, []hsmtest.Fault{{MaxSessions: 8, ToldSessions: new(^uint(0))}, slow}, 5, 8},
		"fast":                          {0, nil, 1, 4 + anchors},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := newDistant(t, hsm.Config{Sessions: c.sessions}, c.faults...)
			load(t, s, 40, 40)
			open := m.Counters().Sessions
			t.Logf("%d sessions", open)
			if open < c.least || open > c.most || open != s.Stats().Sessions {
				t.Errorf("%d sessions, want %d to %d; the store knows of %d", open, c.least, c.most, s.Stats().Sessions)
			}
			s.Rest()
			s.Rest()
			if now := m.Counters().Sessions; now > 4+anchors {
				t.Errorf("%d sessions are left open without a load", now)
			}
			load(t, s, 1, 1)
		})
	}
}

// unwrapOnce unwraps a key that was wrapped for an RSA key.
func unwrapOnce(t *testing.T, s *hsm.Store) {
	t.Helper()
	v, err := s.Create("rsa", keystore.RSAUnwrap2048)
	if err != nil {
		t.Fatal(err)
	}
	k, err := v.Key.(keystore.Unwrapper).Unwrap(keystore.HMACSHA256, encryptOAEP(t, v.Key, make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
}

// TestOneSession uses a token that has one session for everything: what is sealed outlives
// a device that fails in it, and all else what other people's data causes.
func TestOneSession(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	one := hsmtest.Fault{MaxSessions: 1}
	m.Inject(one)
	s := open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
	seal(t, s)
	if soak() {
		unwrapOnce(t, s)
	}
	unsealEach(t, s, sealEach(t, s, 0))
	load(t, s, 8, 5)
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seal(k, nil); err != nil {
		t.Fatal(err)
	}
	want, err := k.(keystore.MAC).Sum(nil)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := s.Generate(keystore.AES128CBC)
	if err != nil {
		t.Fatal(err)
	}
	life := s.Stats().Epoch
	for range 10 {
		_, open := kept.(keystore.Cipher).Decrypt(make([]byte, 16), make([]byte, 32))
		_, find := s.Lookup("none")
		if !errors.Is(open, keystore.ErrBadData) || !errors.Is(find, keystore.ErrNotFound) {
			t.Fatalf("bad data: %v; no key: %v", open, find)
		}
	}
	if _, err := kept.(keystore.Cipher).Encrypt(make([]byte, 16), nil); err != nil || s.Stats().Epoch != life {
		t.Errorf("bad data cost the session: %v, lives %d and %d", err, life, s.Stats().Epoch)
	}
	m.Inject(one, hsmtest.Fault{Function: "C_Sign", Code: pkcs11.CKR_GENERAL_ERROR, Times: 1})
	if got, err := k.(keystore.MAC).Sum(nil); err != nil || string(got) != string(want) {
		t.Errorf("after a failure: %v, the same %t", err, string(got) == string(want))
	}
	if n := m.Counters().Sessions; n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// TestHandleReused gives up a session that is gone, whose handle another session has by now: that
// one stays open, and is closed when it is given up itself, whatever else has its handle.
func TestHandleReused(t *testing.T) {
	s, _ := newStore(t)
	for _, old := range []bool{false, true} {
		for _, first := range []bool{true, false} {
			twins, err := hsm.NewTwins(s, old)
			if err != nil {
				t.Fatal(err)
			}
			if open := twins.Empty(first); open != first {
				t.Errorf("of an older module: %t; emptied first: %t; open: %t", old, first, open)
			}
			twins.End()
		}
	}
}
