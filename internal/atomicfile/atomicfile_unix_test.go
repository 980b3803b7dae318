//go:build unix

package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMode(t *testing.T) {
	for _, c := range []struct {
		mask       int
		mode, want fs.FileMode
	}{
		{0, 0, 0o600}, {0o022, 0, 0o600}, {0o077, 0o644, 0o600}, {0, 0o644, 0o644}, {0o027, 0o644, 0o640},
	} {
		for name, write := range writers {
			path := filepath.Join(t.TempDir(), "file")
			if name == "replace" {
				put(t, path, "open to all")
				os.Chmod(path, 0o666)
			}
			before := unix.Umask(c.mask)
			err := write(path, []byte("text"), c.mode)
			unix.Umask(before)
			info, errStat := os.Stat(path)
			if err != nil || errStat != nil || info.Mode().Perm() != c.want {
				t.Errorf("%s, umask %04o, mode %04o: %v, %v, %v; want %04o", name, c.mask, c.mode, info.Mode(), err, errStat, c.want)
			}
		}
	}
}

// TestDiskFull bounds the size of files instead, which a write notices as it
// notices a full disk: after some bytes. A process of its own has that bound.
func TestDiskFull(t *testing.T) {
	if path := os.Getenv("ATOMICFILE_FULL"); path != "" {
		writeInto4KiB(t, path)
		return
	}
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "file"), "old")
	c := exec.Command(os.Args[0], "-test.run=^TestDiskFull$")
	c.Env = append(os.Environ(), "ATOMICFILE_FULL="+path)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	holds(t, path, "old")
	names(t, dir, "file")
}

func writeInto4KiB(t *testing.T, path string) {
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 4096, Max: unix.RLIM_INFINITY}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{Replace(path, make([]byte, 10000), 0), Create(path+"2", make([]byte, 10000), 0)} {
		if !errors.Is(err, unix.EFBIG) {
			t.Errorf("%v, want EFBIG", err)
		}
	}
}

// TestUnwritable has a directory in which nobody, root included, makes files.
func TestUnwritable(t *testing.T) {
	dir := "/proc/self"
	if os.Geteuid() != 0 {
		dir = t.TempDir()
		os.Chmod(dir, 0o500)
	}
	for name, write := range writers {
		if err := write(filepath.Join(dir, "file"), []byte("text"), 0); err == nil {
			t.Errorf("%s in %s", name, dir)
		}
	}
}

// TestForeignLink has a link that another user planted where root writes.
func TestForeignLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a link away")
	}
	dir := t.TempDir()
	victim := put(t, filepath.Join(dir, "victim"), "old")
	link := symlink(t, victim, filepath.Join(dir, "link"))
	if err := os.Lchown(link, 65534, 65534); err != nil {
		t.Skip(err)
	}
	for _, path := range []string{link, symlink(t, "link", filepath.Join(dir, "own"))} {
		if err := Replace(path, []byte("new"), 0); !errors.Is(err, ErrForeignLink) {
			t.Errorf("through a link of another user: %v", err)
		}
	}
	holds(t, victim, "old")
	names(t, dir, "link", "own", "victim")
}

// TestOpen writes logs through links: only through one of this user or of root, and through
// those of the kernel.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	victim := put(t, filepath.Join(dir, "victim"), "old")
	through := func(path string) error {
		f, err := Open(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return err
		}
		_, err = f.WriteString(", new")
		return errors.Join(err, f.Close())
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, path := range []string{
		victim, symlink(t, "victim", filepath.Join(dir, "link")), symlink(t, "link", filepath.Join(dir, "twice")),
		symlink(t, filepath.Join(dir, "made"), filepath.Join(dir, "dangling")), filepath.Join(dir, "log"), fmt.Sprintf("/dev/fd/%d", w.Fd()),
	} {
		if err := through(path); err != nil {
			t.Error(err)
		}
	}
	holds(t, victim, "old, new, new, new")
	holds(t, filepath.Join(dir, "made"), ", new")
	if os.Geteuid() != 0 {
		t.Skip("only root can give a link away")
	}
	for to, name := range map[string]string{"victim": "foreign", "nothing": "foreign-dangling"} {
		link := symlink(t, to, filepath.Join(dir, name))
		if err := os.Lchown(link, 65534, 65534); err != nil {
			t.Skip(err)
		}
		for _, path := range []string{link, symlink(t, name, link+"-own")} {
			if err := through(path); !errors.Is(err, ErrForeignLink) {
				t.Errorf("through a link of another user to %s: %v", to, err)
			}
		}
	}
	holds(t, victim, "old, new, new, new")
	if there(filepath.Join(dir, "nothing")) {
		t.Error("a file was made through a link of another user")
	}
}

func TestNoRegularFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, symlink(t, "pipe", path+"-link")} {
		if err := Replace(path, []byte("new"), 0); !errors.Is(err, errNotFile) {
			t.Errorf("a pipe: %v", err)
		}
	}
}
