package enroll

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
)

func devicesIn(t *testing.T, path string) (all []string) {
	t.Helper()
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.View(context.Background(), func(tx Tx) error {
		return tx.All(func(r Record) error { all = append(all, r.Name); return nil })
	})
	return all
}

// TestRestore restores a copy over a newer file, one in use, a damaged one, and none.
func TestRestore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "enrollments")
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(r Record) {
		t.Helper()
		if err := f.Update(context.Background(), func(tx Tx) error { return tx.Put(r) }); err != nil {
			t.Fatal(err)
		}
	}
	put(Record{ID: ID{1}, Name: "one", State: Approved})
	var copied bytes.Buffer
	if err := f.Snapshot(&copied); err != nil {
		t.Fatal(err)
	}
	put(Record{ID: ID{2}, Name: "two", State: Approved})
	if _, err := Restore(copied.Bytes(), path); !errors.Is(err, ErrInUse) {
		t.Errorf("of a file in use: %v", err)
	}
	f.Close()
	aside, err := Restore(copied.Bytes(), path)
	if got := devicesIn(t, path); err != nil || len(got) != 1 || len(devicesIn(t, aside)) != 2 {
		t.Errorf("restored %v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if other, err := Restore(copied.Bytes(), path); err != nil || other == aside || len(devicesIn(t, path)) != 1 {
		t.Errorf("over a damaged file: aside %s, %v", other, err)
	}
	os.Remove(path)
	if aside, err := Restore(copied.Bytes(), path); err != nil || aside != "" || len(devicesIn(t, path)) != 1 {
		t.Errorf("where nothing was: aside %q, %v", aside, err)
	}
	if _, err := Restore(copied.Bytes()[:5000], path); !errors.Is(err, ErrDamaged) || len(devicesIn(t, path)) != 1 {
		t.Errorf("of half a copy: %v", err)
	}
}

// TestWriteInterrupted opens the part of a file whose writer was killed.
func TestWriteInterrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "enrollments")
	db, err := boltkv.Open(path, layout(new(bool)), boltkv.CreateNew)
	if err != nil {
		t.Fatal(err)
	}
	_, err = kv.BeginCopy(t.Context(), db, tables())
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = OpenFile(path)
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "was interrupted") {
		t.Errorf("it opens: %v", err)
	}
}
