package throwaway

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// TestNoTemporary has the error name the setting, which the path does not.
func TestNoTemporary(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "nowhere"))
	_, err := Dir("", "x-*")
	_, errFile := File("", "x-*")
	for _, err := range []error{err, errFile} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "TMPDIR") {
			t.Error(err)
		}
	}
}

func TestSweep(t *testing.T) {
	in := t.TempDir()
	t.Chdir(in)
	dir, err := Dir(".", "dir-*")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := File(in, "file-*")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := File(in, "kept-*")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	defer kept.Close()
	if err := os.Rename(kept.Name(), "final"); err != nil {
		t.Fatal(err)
	}
	t.Chdir("/")
	Sweep()()
	if got := entries(t, in); len(got) != 1 || got[0] != "final" {
		t.Errorf("%q are left", got)
	}
}

func TestRemove(t *testing.T) {
	in := t.TempDir()
	f, err := File(in, "x-*")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := Remove(f.Name()); err != nil || len(entries(t, in)) != 0 {
		t.Errorf("%v, %q", err, entries(t, in))
	}
	if err := os.WriteFile(f.Name(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	Sweep()()
	if len(entries(t, in)) != 1 {
		t.Error("a file of the same name that is another's is gone")
	}
}
