package admin

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOtherUsers has another user of the machine try the socket, behind which everything can be
// seen and changed, with profiles of the process and its memory.
func TestOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can act as another user")
	}
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "s")
	defer Service{Socket: at, Pages: map[string]http.Handler{"GET /debug/pprof/": http.NotFoundHandler()}}.Listen(slog.New(slog.DiscardHandler)).Close()
	conn, err := net.Dial("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	failed := make(chan error)
	go func() { // in a thread that ends with it
		runtime.LockOSThread()
		unix.Setfsuid(65534)
		conn, err := net.Dial("unix", at)
		if err == nil {
			conn.Close()
		}
		failed <- err
	}()
	if err := <-failed; !errors.Is(err, fs.ErrPermission) {
		t.Errorf("another user reached the server: %v", err)
	}
}

// TestOthersState has another user of the machine ask for the server of a state file that it must not
// read: that is no answer.
func TestOthersState(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can act as another user")
	}
	path := filepath.Join(t.TempDir(), "server.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unreachable(path); err != nil {
		t.Errorf("nobody has it open: %v", err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	found := make(chan error)
	go func() { // in a thread that ends with it
		runtime.LockOSThread()
		unix.Setfsuid(65534)
		found <- unreachable(path)
	}()
	if err := <-found; !errors.Is(err, fs.ErrPermission) {
		t.Errorf("another user was told %v", err)
	}
}
