package localsocket

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// listen returns a listener and what it logs.
func listen(t *testing.T, path string) (l *Listener, told *bytes.Buffer) {
	t.Helper()
	told = &bytes.Buffer{}
	l, err := Listen(path, slog.New(slog.NewTextHandler(told, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, told
}

func checkConnects(t *testing.T, l *Listener, path string) {
	t.Helper()
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	accepted := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			conn.Close()
		}
		accepted <- err
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-accepted; err != nil {
		t.Error(err)
	}
}

// TestTaken replaces a socket at which nobody listens, and nothing else.
func TestTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, nil); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	os.Remove(path)
	former, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, nil); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "another process listens at "+path) {
		t.Errorf("a socket in use: %v", err)
	}
	former.SetUnlinkOnClose(false) // as one that was killed
	former.Close()
	l, _ := listen(t, path)
	checkConnects(t, l, path)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed again: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after it: %v", err)
	}
}

// TestOneOfMany starts several listeners at a socket at which nobody listens: one gets the path.
func TestOneOfMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 100 {
		former, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		former.SetUnlinkOnClose(false)
		former.Close()
		start, made := make(chan struct{}), make(chan *Listener)
		for range 8 {
			go func() {
				<-start
				l, err := Listen(path, nil)
				if err != nil && !errors.Is(err, ErrTaken) {
					t.Error(err)
				}
				made <- l
			}()
		}
		close(start)
		var all []*Listener
		for range 8 {
			if l := <-made; l != nil {
				all = append(all, l)
			}
		}
		if len(all) != 1 || !all[0].there() {
			t.Errorf("%d listen", len(all))
		}
		for _, l := range all {
			l.Close()
		}
		os.Remove(path)
	}
}

// TestWhoseSocket says what is known about a socket from trying to connect to it.
func TestWhoseSocket(t *testing.T) {
	const listens = "another process listens at s: name another path"
	_, late := net.DialTimeout("tcp", "127.0.0.1:9", 1)
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, listens},
		{late, listens},
		{syscall.EAGAIN, listens},
		{os.ErrDeadlineExceeded, listens},
		{syscall.EACCES, "s is a socket of another user: name another path, or remove it"},
		{syscall.EPROTOTYPE, "s is a socket of another kind: name another path, or remove it"},
		{syscall.ENOENT, ""},
		{syscall.ECONNREFUSED, ""},
	} {
		if err := owned("s", c.err); (c.want == "") != (err == nil) || err != nil && (err.Error() != c.want || !errors.Is(err, ErrTaken)) {
			t.Errorf("%v: %v", c.err, err)
		}
	}
	if err := owned("s", syscall.EMFILE); !errors.Is(err, syscall.EMFILE) {
		t.Error(err)
	}
}

// TestLockedByOthers makes a socket in a directory that another process has locked forever.
func TestLockedByOthers(t *testing.T) {
	dir := t.TempDir()
	other, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, _ := listen(t, path)
	checkConnects(t, l, path)
}

// TestRemoved makes a socket again that was removed, while a program waits for connections.
func TestRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(dir, "s")
	mkdir := func() {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mkdir()
	l, told := listen(t, path)
	l.look()
	if told.Len() > 0 {
		t.Errorf("nothing happened: %s", told)
	}
	waiting := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			conn.Close()
		}
		waiting <- err
	}()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	l.look()
	l.look()
	if strings.Count(told.String(), "cannot be made again yet") != 1 || !strings.Contains(told.String(), "no such file") {
		t.Errorf("without its directory: %s", told)
	}
	mkdir()
	l.look()
	if strings.Count(told.String(), "was made again") != 1 {
		t.Errorf("with its directory: %s", told)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-waiting; err != nil {
		t.Errorf("who waited: %v", err)
	}
	checkConnects(t, l, path)
}

// TestReplaced leaves a socket of others in place.
func TestReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, told := listen(t, path)
	os.Remove(path)
	other, _ := listen(t, path)
	l.look()
	if !strings.Contains(told.String(), "another process listens") {
		t.Errorf("logged %s", told)
	}
	l.Close()
	checkConnects(t, other, path)
}

// TestOthersUndisturbed makes directories while sockets are made: they have the mode that they
// would have without them.
func TestOthersUndisturbed(t *testing.T) {
	beside, path := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "s")
	stop, made := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				made <- nil
				return
			default:
			}
			err := os.Mkdir(beside, 0o700)
			if info, errInfo := os.Lstat(beside); err == nil && errInfo == nil && info.Mode() != fs.ModeDir|0o700 {
				err = errors.New(info.Mode().String())
			}
			if err = errors.Join(err, os.Remove(beside)); err != nil {
				made <- err
				return
			}
		}
	}()
	for range 500 {
		l, err := Listen(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	close(stop)
	if err := <-made; err != nil {
		t.Errorf("a directory that was made meanwhile: %v", err)
	}
}

// TestApart makes a socket as on systems where its file does not get its mode.
func TestApart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := listenApart(path)
	if err != nil {
		t.Fatal(err)
	}
	checkConnects(t, &Listener{path: path, now: l}, path)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := listenApart(filepath.Join(dir, "d")); err == nil {
		t.Error("it replaced a directory")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left: %v, %v", left, err)
	}
}
