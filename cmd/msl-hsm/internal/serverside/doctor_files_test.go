package serverside

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// TestDiskFull tells a full disk from a pipe, which has no room either.
func TestDiskFull(t *testing.T) {
	for want, fs := range map[bool]unix.Statfs_t{true: {Blocks: 100, Bfree: 5}, false: {}} {
		if full(fs) != want {
			t.Errorf("%+v: full is not %v", fs, want)
		}
	}
}

// TestEtcdKey examines a private key that everybody can read, and one that a group can read.
func TestEtcdKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd.key")
	for mode, want := range map[os.FileMode]int{0o644: 1, 0o640: 0} {
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		d := &doctor{c: &config.Config{}}
		d.c.Server.State.Key = path
		d.files()
		if len(d.found) != want || want == 1 && !strings.Contains(d.found[0].Detail, "every user of this machine can use the private key "+path+", which has mode 0644: chmod o= ") {
			t.Errorf("mode %#o: %v", mode, d.found)
		}
	}
}

// TestLogLinks follows links to a log as a server does: each of them, and none of another user.
func TestLogLinks(t *testing.T) {
	dir := t.TempDir()
	path, between := filepath.Join(dir, "log"), filepath.Join(dir, "between")
	tried := func() (failed string) {
		d := &doctor{c: &config.Config{}}
		if !d.writable("server.audit.file", path) {
			failed = d.found[0].Detail
		}
		return failed
	}
	if err := errors.Join(os.Symlink("between", path), os.Symlink("gone/log", between)); err != nil {
		t.Fatal(err)
	}
	if failed := tried(); !strings.HasPrefix(failed, filepath.Join(dir, "gone")+" cannot be written: no such file or directory: make the directory, or choose another path in server.audit.file") {
		t.Errorf("two links: %q", failed)
	}
	if err := os.Mkdir(filepath.Join(dir, "gone"), 0o700); err != nil {
		t.Fatal(err)
	}
	if failed := tried(); failed != "" {
		t.Error(failed)
	}
	if err := os.Lchown(between, 65534, 65534); err != nil {
		t.Skip(err)
	}
	if failed := tried(); !strings.Contains(failed, "is a link of another user: delete it") {
		t.Errorf("a link of another user: %q", failed)
	}
}

// TestOtherKinds finds a socket where a log belongs, and a file where the socket of server.push.from
// belongs. A server would start with neither; it replaces a socket.
func TestOtherKinds(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "f", "")
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := &doctor{c: &config.Config{}}
	if d.writable("server.access-log", filepath.Join(dir, "s")) || !strings.Contains(d.found[0].Detail, "is a socket: name a file") {
		t.Errorf("a log: %v", d.found)
	}
	for path, want := range map[string]string{"s": "", "f": "exists and is not a socket: remove it", "new": "", "f/new": "not a directory; correct the path"} {
		d := &doctor{c: &config.Config{}}
		d.c.Server.Push.From = "unix:" + filepath.Join(dir, path)
		d.ports(false)
		if len(d.found) != min(len(want), 1) || want != "" && (d.found[0].Verdict != Failure || !strings.Contains(d.found[0].Detail, want)) {
			t.Errorf("a socket at %s: %v", path, d.found)
		}
	}
}

// TestUnwritable says for each reason why a log cannot be written what helps against that.
func TestUnwritable(t *testing.T) {
	for err, want := range map[error]string{
		unix.ENOENT: "/l cannot be written: no such file or directory: make the directory, or choose another path in server.access-log",
		unix.EACCES: "/l cannot be written: permission denied: change who may write there, choose another path in server.access-log, or run this as the user of the server",
		unix.EROFS:  "/l cannot be written: read-only file system; mount it for writing; if it became read-only on its own, the kernel log says why",
	} {
		if got := exit.OneLine(unwritable("server.access-log", "/l", err)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
