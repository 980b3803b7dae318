//go:build unix

package plainfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file, pipe, large := filepath.Join(dir, "file"), filepath.Join(dir, "pipe"), filepath.Join(dir, "large")
	err := errors.Join(os.WriteFile(file, []byte("text"), 0o600), os.WriteFile(large, nil, 0o600), os.Truncate(large, Most+1), unix.Mkfifo(pipe, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none")
	for _, c := range []struct {
		path        string
		read, check error
	}{
		{file, nil, nil},
		{none, fs.ErrNotExist, nil},
		{large, errTooLarge, errTooLarge},
		{pipe, errNobody, errNotRegular},
		{os.DevNull, nil, errNotRegular},
		{dir, unix.EISDIR, errNotRegular},
	} {
		if _, err := Read(c.path); !errors.Is(err, c.read) {
			t.Errorf("reading %s: %v, want %v", c.path, err, c.read)
		}
		if err := Check("", c.path); !errors.Is(err, c.check) {
			t.Errorf("checking %s: %v, want %v", c.path, err, c.check)
		}
	}
	if text, err := Read(file); string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
}

// A pipe of a shell is read to its end, as by cat <(printf text).
func TestPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		w.WriteString("te")
		w.WriteString("xt")
		w.Close()
	}()
	text, err := Read(fmt.Sprintf("/dev/fd/%d", r.Fd()))
	if err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
}
