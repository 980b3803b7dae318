package admin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// TestWhole writes a file that has its name only when it is complete: what fails or is
// overtaken leaves nothing.
func TestWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "export")
	errFull := errors.New("no space left")
	write := func(content string, err error) func(string) error {
		return func(made string) error {
			if _, errThere := os.Lstat(path); errThere == nil && content == "first" {
				t.Error("it is there before it is complete")
			}
			return errors.Join(os.WriteFile(made, []byte(content), 0o600), err)
		}
	}
	if err := whole(path, write("first", errFull)); !errors.Is(err, errFull) {
		t.Error(err)
	}
	if err := whole(path, write("first", nil)); err != nil {
		t.Error(err)
	}
	err := whole(path, func(string) error { t.Error("written again"); return nil })
	if err == nil || !strings.Contains(err.Error(), path+" already exists: name another file") {
		t.Error(err)
	}
	other := filepath.Join(dir, "other")
	err = whole(other, func(made string) error {
		return errors.Join(os.WriteFile(made, nil, 0o600), os.Link(path, other))
	})
	if err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Error(err)
	}
	if content, err := os.ReadFile(other); string(content) != "first" || err != nil {
		t.Errorf("%q, %v", content, err)
	}
	if left, err := os.ReadDir(dir); len(left) != 2 || err != nil {
		t.Errorf("%v, %v", left, err)
	}
	if err := whole(filepath.Join(dir, "no", "x"), nil); err == nil || !strings.Contains(err.Error(), "make the directory") {
		t.Error(err)
	}
}

// TestBackupNameTaken has another command take the name while a backup is made.
func TestBackupNameTaken(t *testing.T) {
	dir := t.TempDir()
	made, to := filepath.Join(dir, "made"), filepath.Join(dir, "b.bak")
	for _, path := range []string{made, to} {
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := named(made, to)
	if exit.Code(err) != exit.Usage || !strings.HasSuffix(err.Error(), "b.bak already exists: name another file, or add --force") {
		t.Error(err)
	}
	if got, err := os.ReadFile(to); string(got) != to {
		t.Errorf("it now has %q, %v", got, err)
	}
}
