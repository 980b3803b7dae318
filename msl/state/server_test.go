package state

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/internal/stretch"
	"github.com/msl-hsm/msl-hsm/msl"
)

// cheap keeps password tests fast.
var cheap = stretch.Cost{Time: 1, Memory: 64, Threads: 1}

// newServer returns a server with its state in memory.
func newServer(t *testing.T) *Server {
	t.Helper()
	return serverIn(t, &kvtest.Memory{})
}

func serverIn(t testing.TB, store kv.Store) *Server {
	t.Helper()
	s, err := NewServer(store)
	if err != nil {
		t.Fatal(err)
	}
	s.cost = cheap
	t.Cleanup(s.StopPruning)
	return s
}

// inFile returns a server with its state in a file, for tests of the time a database
// takes.
func inFile(t testing.TB) (*Server, *boltkv.DB) {
	t.Helper()
	layout := boltkv.Layout{Kind: "server", Name: "state file", Tables: ServerTables(), Explain: func(_ string, err error) error { return err }}
	db, err := boltkv.Open(filepath.Join(t.TempDir(), "state"), layout, boltkv.CreateNew)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return serverIn(t, db), db
}

// reopen discards everything in a server except its store.
func reopen(t *testing.T, s *Server) *Server {
	t.Helper()
	s.StopPruning()
	return serverIn(t, s.store)
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestRevoked(t *testing.T) {
	s := newServer(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.AddEntity(pskEntity("device")))
	must(s.AddEntity(pskEntity("lost")))
	must(s.AddEntity(pskEntity("bad")))
	must(s.RemoveEntity("lost"))
	must(s.RevokeEntity("bad"))
	must(s.RevokeEntity("CN=never registered"))
	must(s.AddUser("ann", []byte("a password")))
	must(s.AddUser("bob", []byte("a password")))
	must(s.RemoveUser("bob"))
	must(s.RevokeUser("eve"))
	for range 2 {
		for _, c := range []struct {
			identity, user string
			want           error
		}{
			{"device", "", nil},
			{"device", "ann", nil},
			{"device", "an application's own user", nil},
			{"CN=unknown", "", nil},
			{"device", "bob", msl.ErrUserIDTokenRevoked},
			{"device", "eve", msl.ErrUserIDTokenRevoked},
			{"lost", "", msl.ErrMasterTokenIdentityRevoked},
			{"bad", "ann", msl.ErrMasterTokenIdentityRevoked},
			{"bad", "bob", msl.ErrMasterTokenIdentityRevoked},
			{"CN=never registered", "", msl.ErrMasterTokenIdentityRevoked},
		} {
			if err := s.Revoked(ctx, c.identity, c.user); err != c.want {
				t.Errorf("Revoked(%q, %q) = %v, want %v", c.identity, c.user, err, c.want)
			}
		}
		s = reopen(t, s)
	}
}
