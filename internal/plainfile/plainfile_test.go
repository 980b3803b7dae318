//go:build unix

package plainfile

import (
	"errors"
	"fmt"
	"io"
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
	none, socket := filepath.Join(dir, "none"), filepath.Join(dir, "socket")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: socket}), unix.Close(fd))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path              string
		read, check, open error
	}{
		{file, nil, nil, nil},
		{none, fs.ErrNotExist, nil, fs.ErrNotExist},
		{large, errTooLarge, errTooLarge, nil},
		{pipe, errNobody, errNotRegular, nil},
		{os.DevNull, nil, errNotRegular, errNotRegular},
		{dir, unix.EISDIR, errNotRegular, errNotRegular},
		{socket, errSocket, errNotRegular, errSocket},
	} {
		f, err := Open(c.path)
		if !errors.Is(err, c.open) {
			t.Errorf("opening %s: %v, want %v", c.path, err, c.open)
		}
		if c.path == pipe {
			if text, err := io.ReadAll(f); !errors.Is(err, errNobody) || len(text) > 0 {
				t.Errorf("%q, %v", text, err)
			}
		}
		if err == nil {
			f.Close()
		}
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

// Stream takes what Open does, and devices. A pipe to which nobody writes is not an empty file.
func TestStream(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{pipe: errNobody, os.DevNull: nil} {
		f, err := Stream(path)
		if err != nil {
			t.Fatal(path, err)
		}
		if _, err := io.ReadAll(f); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		f.Close()
	}
	if _, err := Stream(t.TempDir()); !errors.Is(err, errDirectory) {
		t.Error("a directory:", err)
	}
	held, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Stream(pipe)
	if err == nil {
		_, err = held.WriteString("text")
	}
	held.Close()
	if text, errRead := io.ReadAll(f); string(text) != "text" || errors.Join(err, errRead) != nil {
		t.Errorf("%q, %v, %v", text, err, errRead)
	}
	f.Close()
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
