package msl_test

import (
	"context"
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
// second, whoever sends them. They are refused if the last look came after the first token
// of that version, and asked to try again if not.
func TestJunkVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stranger := soft.New()
		defer stranger.Close()
		newVersions(t, stranger)
		newVersions(t, stranger)
		foreign := findIssuer(t, stranger)
		second := issueToken(t, foreign)
		newVersions(t, stranger)
		if err := foreign.Versions.Refresh(); err != nil {
			t.Fatal(err)
		}
		third := issueToken(t, foreign)
		own := &countedLooks{Store: soft.New()}
		defer own.Close()
		newVersions(t, own.Store)
		i := findIssuer(t, own)
		open := func(junk *msl.MasterToken) (refused bool) {
			_, err := i.Open(junk)
			refused = errors.Is(err, msl.ErrMasterTokenUntrusted)
			if !refused && !(errors.Is(err, keystore.ErrBusy) && errors.Is(err, msl.ErrInternalException)) {
				t.Fatal(err)
			}
			return refused
		}
		if !open(third) || open(second) || open(second) {
			t.Error("not the first of a second, and only that, is looked for")
		}
		for n := range 39 {
			time.Sleep(100 * time.Millisecond)
			if !open(third) || open(second) != (n >= 9) {
				t.Errorf("after %d00 ms", n+1)
			}
		}
		if own.looks != 4 {
			t.Errorf("%d looks", own.looks)
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

// TestServiceTokensOfOthers has a client hold a service token of another service, whose keys
// have a higher version than this one's. The token is passed on unread, and no message is
// refused for it.
func TestServiceTokensOfOthers(t *testing.T) {
	n := softNetwork(t)
	keys := func(versions int) msl.ServiceTokenKeys {
		s := soft.New()
		t.Cleanup(func() { s.Close() })
		for range versions {
			newVersions(t, s)
		}
		return must(msl.FindVersions(s, "msl-issuer-encryption", "msl-issuer-mac")).ServiceTokenKeys("x")
	}
	n.server.ServiceTokens = keys(3)
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		w.SetServiceToken("of another", []byte("x"), msl.BindNone)
		return echo(ctx, w, m)
	}
	client := n.pskClient("device")
	mustSend(t, client, plainly(), 2)
	n.server.ServiceTokens = keys(1)
	n.handler = echo
	for range 5 {
		mustSend(t, client, plainly(), 2)
	}
	if held := client.Held().ServiceTokens; len(held) != 1 {
		t.Errorf("%d tokens are held", len(held))
	}
}
