package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

func guarded(mark *kvtest.Mark, trust authkv.Trust) Files {
	return Files{Guard{Key: func() (Key, authkv.Mark, error) { return kvtest.Secret("key"), mark, nil }, Trust: trust}}
}

// furnish puts an entity, a revocation and an id into a file that nobody has open.
func furnish(t *testing.T, f Files, path string) {
	t.Helper()
	s, err := f.Reopen(path)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		s.AddEntity(state.EntityRecord{Identity: "camera", Scheme: "NONE"}),
		s.RevokeEntity("thief"),
		s.AcceptID(t.Context(), "camera", 1, 5),
		renew(t.Context(), s),
		s.Close())
	if err != nil {
		t.Fatal(err)
	}
}

func renew(ctx context.Context, s *Server) error {
	_, err := s.Renew(ctx, "camera", 1, 0)
	return err
}

// forge changes a file as somebody does who can write it.
func forge(t *testing.T, path string, change func(kv.Tx) error) {
	t.Helper()
	s, err := unguarded(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.db.Update(t.Context(), change), s.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestForged(t *testing.T) {
	var old []byte // the record of a name that is not revoked
	for name, change := range map[string]func(kv.Tx) error{
		"a revocation lifted": func(tx kv.Tx) error { return tx.Delete("entity marks", []byte("thief")) },
		"an entity removed":   func(tx kv.Tx) error { return tx.Delete("entities", []byte("camera")) },
		"an entity added":     func(tx kv.Tx) error { return tx.Put("entities", []byte("spy"), old) },
		"a setting changed":   func(tx kv.Tx) error { return tx.Delete(kv.Settings, []byte("rotation")) },
		"a setting added":     func(tx kv.Tx) error { return tx.Put(kv.Settings, []byte("began"), make([]byte, 8)) },
		"no root":             func(tx kv.Tx) error { return tx.Delete(kv.Settings, []byte("root")) },
		"another root":        func(tx kv.Tx) error { return tx.Put(kv.Settings, []byte("root"), make([]byte, 3000)) },
		"nothing at all": func(tx kv.Tx) error {
			for _, table := range append(state.ServerTables(), kv.Settings) {
				for p, err := range kv.All(tx, table, nil, nil) {
					if err == nil && string(p.Key) != "format" {
						err = tx.Delete(table, slices.Clone(p.Key))
					}
					if err != nil {
						return err
					}
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, mark := filepath.Join(t.TempDir(), "state"), &kvtest.Mark{}
			f := guarded(mark, authkv.Adopt)
			s, err := f.Create(path)
			if err != nil || !s.Verdict.New || !mark.Made {
				t.Fatalf("a new file: %+v, %v, marked %v", s, err, mark.Made)
			}
			if err := errors.Join(s.SetRotation(t.Context(), state.Rotation{Number: 1}), s.Close()); err != nil {
				t.Fatal(err)
			}
			furnish(t, f, path)
			forge(t, path, func(tx kv.Tx) error {
				if old, err = tx.Get("entities", []byte("camera")); err != nil {
					return err
				}
				old = slices.Clone(old)
				return nil
			})
			forge(t, path, change)
			for _, trust := range []authkv.Trust{authkv.Judge, authkv.Adopt} {
				if s, err := guarded(mark, trust).Reopen(path); !errors.Is(err, ErrForged) {
					t.Fatalf("%s: %+v, %v, want ErrForged", name, s, err)
				}
			}
			if _, err := f.Restore(path, filepath.Join(t.TempDir(), "other"), false); !errors.Is(err, ErrForged) {
				t.Errorf("as a backup: %v, want ErrForged", err)
			}
		})
	}
}

// TestGuard puts an older file through everything that is done with one.
func TestGuard(t *testing.T) {
	dir, mark := t.TempDir(), &kvtest.Mark{}
	path, backup := filepath.Join(dir, "state"), filepath.Join(dir, "backup")
	serve, command, vouch := guarded(mark, authkv.Adopt), guarded(mark, authkv.Judge), guarded(mark, authkv.Vouch)
	open := func(f Files, path string, want Verdict) {
		t.Helper()
		s, err := f.Reopen(path)
		if err != nil || s.Verdict != want {
			t.Fatalf("%+v, %v, want %+v", s, err, want)
		}
		if _, revoked := s.Revoked(t.Context(), "thief", ""), s.Close(); revoked != nil {
			t.Fatal(revoked)
		}
	}
	if s, err := CreateServer(path); err != nil || s.Close() != nil {
		t.Fatal(err)
	}
	furnish(t, command, path) // which leaves it as it is
	old := content(t, path)
	open(command, path, Verdict{})
	open(serve, path, Verdict{Authentic: true, New: true})
	open(serve, path, Verdict{Authentic: true})
	open(command, path, Verdict{Authentic: true})
	s, err := ReopenServer(path) // without the key it can be read
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Entities(); err != nil {
		t.Error(err)
	}
	if err := s.UnrevokeEntity("thief"); !errors.Is(err, ErrNoKey) {
		t.Errorf("changed without the key: %v, want ErrNoKey", err)
	}
	s.Close()

	// the older file does not come back, unless somebody vouches for it
	write(t, path, old)
	if s, err := serve.Reopen(path); !errors.Is(err, ErrUnsigned) {
		t.Errorf("the file of before: %v, %v, want ErrUnsigned", s, err)
	}
	write(t, backup, old)
	if _, err := serve.Restore(backup, path, true); !errors.Is(err, ErrUnsigned) {
		t.Errorf("a backup of before: %v, want ErrUnsigned", err)
	}
	open(vouch, path, Verdict{Authentic: true, New: true})

	// a backup is authentic, also with what is attached, and so is what is made of it
	write(t, backup, content(t, path))
	if err := Attach(backup, []byte("attached")); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyServer(backup); err != nil {
		t.Error(err)
	}
	if _, err := RestoreServer(backup, path, false); !errors.Is(err, ErrNoKey) {
		t.Errorf("restored without the key: %v, want ErrNoKey", err)
	}
	for _, keep := range []bool{true, false} {
		if _, err := command.Restore(backup, path, keep); err != nil {
			t.Fatal(err)
		}
		open(command, path, Verdict{Authentic: true})
	}
	if _, _, err := CompactServer(path); err != nil {
		t.Fatal(err)
	}
	open(command, path, Verdict{Authentic: true})
	if s, err = command.Reopen(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := command.Write(t.Context(), filepath.Join(dir, "written"), s.Server, nil); err != nil {
		t.Fatal(err)
	}
	open(command, filepath.Join(dir, "written"), Verdict{Authentic: true})
}

// TestNoKeyYet makes and uses a file before there is a key, and where the key store fails.
func TestNoKeyYet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	none := Files{Guard{Key: func() (Key, authkv.Mark, error) { return nil, nil, nil }}}
	s, err := none.Create(path)
	if err != nil || s.Verdict.Authentic || s.Close() != nil {
		t.Fatalf("%+v, %v", s, err)
	}
	furnish(t, none, path)
	sick := errors.New("sick")
	fails := Files{Guard{Key: func() (Key, authkv.Mark, error) { return nil, nil, sick }}}
	if _, err := fails.Reopen(path); !errors.Is(err, sick) {
		t.Errorf("a key store that fails: %v", err)
	}
	if _, err := fails.Create(path + "2"); !errors.Is(err, sick) || exists(path+"2") {
		t.Errorf("a file that was begun: %v, and is there: %v", err, exists(path+"2"))
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestTogether has ids accepted and names revoked at once, which share commits, and finds
// everything authentic.
func TestTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f := guarded(&kvtest.Mark{}, authkv.Adopt)
	s, err := f.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for n := range 8 {
		name := fmt.Sprint("device ", n)
		wait.Go(func() {
			for id := range int64(10) {
				if err := s.AcceptID(t.Context(), name, 1, id+1); err != nil {
					t.Error(err)
				}
				if err := s.Revoked(t.Context(), name, ""); err != nil {
					t.Error(err)
				}
			}
			if err := s.RevokeEntity(name); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(s.VerifyRecords(t.Context()), s.Reauthenticate(t.Context()), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = f.Reopen(path); err != nil {
		t.Fatal(err)
	}
	s.Close()
}
