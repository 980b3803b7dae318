package msl_test

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// twoStores returns two stores on one file, as two servers have them.
func twoStores(t *testing.T) (one, two *soft.Store) {
	t.Helper()
	cheap := soft.Config{Cost: soft.Cost{Time: 1, Memory: 8, Threads: 1}, CheapForTests: true}
	path := filepath.Join(t.TempDir(), "keys")
	one, err := cheap.Create(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	newVersions(t, one)
	if two, err = cheap.Open(path, []byte("passphrase")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close(); two.Close() })
	return one, two
}

// newVersions makes the next versions of the keys of a server.
func newVersions(t *testing.T, s *soft.Store) {
	t.Helper()
	for _, role := range keystore.ServerRoles()[1:] {
		if _, err := s.Create(role.Label("msl"), role.Algorithm()); err != nil {
			t.Fatal(err)
		}
	}
}

func findIssuer(t *testing.T, s keystore.Store) *msl.Issuer {
	t.Helper()
	i, err := msl.FindIssuer(s, "server", "msl")
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func issueToken(t *testing.T, i *msl.Issuer) *msl.MasterToken {
	t.Helper()
	keys, err := msl.GenerateSessionKeys(i.Store)
	if err != nil {
		t.Fatal(err)
	}
	s, err := i.Issue("device", nil, 1, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Release)
	return s.Token
}

// TestNewerVersion opens tokens of a version that another server made meanwhile: master
// tokens with what is sealed in them, and so user ID tokens, which take the same way.
func TestNewerVersion(t *testing.T) {
	one, two := twoStores(t)
	issuing, opening := findIssuer(t, one), findIssuer(t, two)
	newVersions(t, one)
	if err := issuing.Versions.Refresh(); err != nil {
		t.Fatal(err)
	}
	if n := issuing.Ring()[0].Version; n != 2 {
		t.Fatalf("version %d issues", n)
	}
	s, err := opening.Open(issueToken(t, issuing))
	if err != nil {
		t.Fatal(err)
	}
	s.Release()
	if n := opening.Ring()[0].Version; n != 2 {
		t.Errorf("version %d issues after the newer one was met", n)
	}
}

// TestChosenVersion issues with an older version as long as that is chosen, and opens
// what the newer one made.
func TestChosenVersion(t *testing.T) {
	one, two := twoStores(t)
	newVersions(t, one)
	if err := two.Refresh(); err != nil {
		t.Fatal(err)
	}
	newest, i := findIssuer(t, one), findIssuer(t, two)
	for _, c := range []struct{ chosen, first uint32 }{{1, 1}, {0, 2}, {1, 1}, {7, 2}} {
		i.Versions.Choose(c.chosen)
		if n := i.Ring()[0].Version; n != c.first || len(i.Ring()) != 2 {
			t.Errorf("with %d chosen version %d of %d issues", c.chosen, n, len(i.Ring()))
		}
	}
	i.Versions.Choose(1)
	for _, role := range keystore.SealingRoles() {
		if err := two.SealWith(role.Label("msl"), 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, issuer := range []*msl.Issuer{newest, i} {
		s, err := i.Open(issueToken(t, issuer))
		if err != nil {
			t.Fatal(err)
		}
		s.Release()
	}
}

// A countedLooks store counts how often its keys were looked for again.
type countedLooks struct {
	*soft.Store
	looks int
}

func (c *countedLooks) Refresh(labels ...string) error {
	c.looks++
	return c.Store.Refresh(labels...)
}

// TestJunkVersions has tokens that name versions which nobody has looked for once a
// second, whoever sends them; they are told to try again, or are refused after a look.
func TestJunkVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stranger := soft.New()
		defer stranger.Close()
		for range 3 {
			newVersions(t, stranger)
		}
		own := &countedLooks{Store: soft.New()}
		defer own.Close()
		newVersions(t, own.Store)
		i, junk := findIssuer(t, own), issueToken(t, findIssuer(t, stranger))
		var refused, later int
		for range 40 {
			_, err := i.Open(junk)
			switch {
			case errors.Is(err, msl.ErrMasterTokenUntrusted):
				refused++
			case errors.Is(err, keystore.ErrBusy) && errors.Is(err, msl.ErrInternalException):
				later++
			default:
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if own.looks != 4 || refused != 4 || later != 36 {
			t.Errorf("%d looks, %d refused, %d to come later", own.looks, refused, later)
		}
		own.looks = 0
		stale := soft.New()
		defer stale.Close()
		newVersions(t, stale)
		if _, err := i.Open(issueToken(t, findIssuer(t, stale))); !errors.Is(err, msl.ErrMasterTokenUntrusted) || own.looks > 0 {
			t.Errorf("a version that is known: %v after %d looks", err, own.looks)
		}
	})
}
