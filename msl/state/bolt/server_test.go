package bolt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// cheap keeps password tests fast.
var cheap = passwordCost{Time: 1, Memory: 64, Threads: 1}

func openServer(t *testing.T, path string) *Server {
	t.Helper()
	s, err := OpenServer(path)
	if err != nil {
		t.Fatal(err)
	}
	s.cost = cheap
	t.Cleanup(func() { s.Close() })
	return s
}

func newServer(t *testing.T) *Server {
	t.Helper()
	return openServer(t, filepath.Join(t.TempDir(), "state"))
}

func reopen(t *testing.T, s *Server) *Server {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return openServer(t, s.path)
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestFileMode(t *testing.T) {
	s := newServer(t)
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestSecondProcess(t *testing.T) {
	s := newServer(t)
	_, err := OpenServer(s.path)
	wantErr(t, err, ErrInUse)
	if err == nil || !strings.Contains(err.Error(), "msl-hsm serve") {
		t.Errorf("error %v", err)
	}
	if err := s.AcceptID(t.Context(), "a", 1, 1); err != nil {
		t.Errorf("the first one is disturbed: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o640); err != nil {
		t.Fatal(err)
	}
	client := filepath.Join(dir, "client")
	c, err := OpenClient(client, "default")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a state file\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none", "state"): "make it, with mode 0700",
		dir:                                 "name a file",
		open:                                "chmod 600",
		client:                              "name another file",
		text:                                "backup",
	} {
		s, err := OpenServer(path)
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", path)
		} else if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "bolt: ") {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
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

func TestClosed(t *testing.T) {
	s := newServer(t)
	s.Close()
	ctx := context.Background()
	if s.Revoked(ctx, "a", "") == nil || s.AcceptID(ctx, "a", 1, 1) == nil || s.AddEntity(pskEntity("a")) == nil {
		t.Error("a closed state answers")
	}
}
