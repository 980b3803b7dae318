package enroll

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
)

func guarded(mark *kvtest.Mark, trust authkv.Trust) Files {
	return Files{Guard{Key: func() (RootKey, authkv.Mark, error) { return kvtest.Secret("key"), mark, nil }, Trust: trust}}
}

// revoked makes a file in which one device is revoked.
func revoked(t *testing.T, files Files) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "enrollments")
	f, err := files.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{{ID: ID{1}, Name: "one", State: Enrolled}, {ID: ID{2}, Name: "thief", State: Revoked}} {
		if err := f.Update(t.Context(), func(tx Tx) error { return tx.Put(r) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestForgedFile changes files so that everything in them fits together.
func TestForgedFile(t *testing.T) {
	for name, change := range map[string]func(storedTx) error{
		"a revocation lifted": func(tx storedTx) error { return tx.Put(Record{ID: ID{2}, Name: "thief", State: Enrolled}) },
		"a device removed":    func(tx storedTx) error { return tx.Delete(ID{2}) },
		"a device added":      func(tx storedTx) error { return tx.Put(Record{ID: ID{3}, Name: "spy", State: Enrolled}) },
		"no root":             func(tx storedTx) error { return tx.tx.Delete(kv.Settings, []byte("root")) },
	} {
		mark := &kvtest.Mark{}
		path := revoked(t, guarded(mark, authkv.Adopt))
		f, err := unguarded(path, boltkv.OpenExisting)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.db.Update(t.Context(), func(tx kv.Tx) error { return change(storedTx{tx}) }); err != nil {
			t.Fatal(err)
		}
		f.Close()
		for _, trust := range []authkv.Trust{authkv.Judge, authkv.Adopt} {
			if _, err := guarded(mark, trust).Open(path); !errors.Is(err, ErrForged) {
				t.Errorf("%s: %v, want ErrForged", name, err)
			}
		}
		copied, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := guarded(mark, authkv.Judge).Restore(copied, filepath.Join(t.TempDir(), "x")); !errors.Is(err, ErrForged) {
			t.Errorf("%s, as a copy: %v, want ErrForged", name, err)
		}
	}
}

// TestGuardedFile puts an older file through what is done with one.
func TestGuardedFile(t *testing.T) {
	mark := &kvtest.Mark{}
	serve, command := guarded(mark, authkv.Adopt), guarded(mark, authkv.Judge)
	path := revoked(t, Files{})
	open := func(files Files, want Verdict) {
		t.Helper()
		f, err := files.Open(path)
		if err != nil || f.Verdict != want {
			t.Fatalf("%+v, %v, want %+v", f, err, want)
		}
		f.Close()
	}
	open(command, Verdict{})
	open(serve, Verdict{Authentic: true, New: true})
	open(command, Verdict{Authentic: true})
	f, err := OpenFile(path) // without the key it can be read
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Update(t.Context(), func(tx Tx) error { return tx.Delete(ID{2}) }); !errors.Is(err, authkv.ErrNoKey) {
		t.Errorf("changed without the key: %v", err)
	}
	f.Close()
	if f, err = command.Open(path); err != nil {
		t.Fatal(err)
	}
	var copied bytes.Buffer
	err = errors.Join(f.Snapshot(&copied), f.Update(t.Context(), func(tx Tx) error { return tx.Put(Record{ID: ID{3}, Name: "three", State: Pending}) }))
	if err != nil {
		t.Fatal(err)
	}
	if states, err := CheckCopy(copied.Bytes()); err != nil || states[Revoked] != 1 {
		t.Errorf("a copy has %v, %v", states, err)
	}
	written := filepath.Join(t.TempDir(), "written")
	if _, err := command.Write(t.Context(), written, f.Stored); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := command.Restore(copied.Bytes(), path); err != nil {
		t.Fatal(err)
	}
	open(command, Verdict{Authentic: true})
	path = written
	open(command, Verdict{Authentic: true})
}
