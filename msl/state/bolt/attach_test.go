package bolt

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestAttach attaches a file to a backup: it can be read back, the backup is still a
// state, and a restored state does not contain it.
func TestAttach(t *testing.T) {
	dir := t.TempDir()
	backup, state := filepath.Join(dir, "backup"), filepath.Join(dir, "state")
	s, err := CreateServer(backup)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got, err := Attached(backup); err != nil || got != nil {
		t.Errorf("of nothing: %q, %v", got, err)
	}
	content := bytes.Repeat([]byte("enrollments "), 100_000)
	for _, c := range [][]byte{[]byte("before"), content} {
		if err := Attach(backup, c); err != nil {
			t.Fatal(err)
		}
		if got, err := Attached(backup); err != nil || !bytes.Equal(got, c) {
			t.Errorf("%d bytes of %d, %v", len(got), len(c), err)
		}
	}
	if _, err := VerifyServer(backup); err != nil {
		t.Error(err)
	}
	if _, err := RestoreServer(backup, state, true); err != nil {
		t.Fatal(err)
	}
	if got, err := Attached(state); err != nil || got != nil {
		t.Errorf("of what was restored: %d bytes, %v", len(got), err)
	}
	raw, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(raw, []byte("enrollments enrollments"))
	raw[at] ^= 1
	if err := os.WriteFile(backup, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Attached(backup); !errors.Is(err, ErrDamaged) {
		t.Errorf("of a damaged one: %d bytes, %v", len(got), err)
	}
}
