package admin

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMakeWhole makes files: nothing is at the path until all is written, nothing else stays, an error
// names the path, a link leads to the file, and a file of another process is left alone.
func TestMakeWhole(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "state.db"), filepath.Join(dir, "link.db")
	if err := os.Symlink("linked.db", link); err != nil {
		t.Fatal(err)
	}
	var during func() error
	create := func(making string) (io.Closer, error) {
		f, err := os.Create(making)
		if err == nil {
			_, err = f.WriteString("whole")
		}
		if !Absent(path) {
			t.Errorf("there is something at %s already", path)
		}
		if failed := during(); failed != nil {
			return nil, errors.Join(&fs.PathError{Op: "write", Path: making, Err: failed}, f.Close())
		}
		return f, err
	}
	during = func() error { return os.ErrInvalid }
	if made, err := makeWhole(path, create); made || !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "write "+path+": ") {
		t.Errorf("made %t, %v", made, err)
	}
	during = func() error { return nil }
	if made, err := makeWhole(link, create); !made || err != nil {
		t.Errorf("by a link: made %t, %v", made, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "linked.db")); string(data) != "whole" {
		t.Errorf("by a link: %q, %v", data, err)
	}
	during = func() error { return os.WriteFile(path, []byte("other"), 0o600) }
	made, err := makeWhole(path, create)
	if data, _ := os.ReadFile(path); made || err != nil || string(data) != "other" {
		t.Errorf("another was first: made %t, %v, %q", made, err, data)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestMakeForeign makes a file through a link that another user may have made: nothing is made.
func TestMakeForeign(t *testing.T) {
	dir := t.TempDir()
	elsewhere, link := filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 65534, 65534); err != nil {
		t.Skip(err)
	}
	made, err := makeWhole(link, func(making string) (io.Closer, error) { return os.Create(making) })
	if made || err == nil || !strings.Contains(err.Error(), "another user") || !Absent(elsewhere) {
		t.Errorf("made %t, %v", made, err)
	}
}
