package auditlog_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/internal/auditlog"
)

// TestUnlistable continues a log whose file was moved away only where the directory can be
// listed: a log that began anew would hide that records are missing.
func TestUnlistable(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "logs", "audit")
	if err := os.Mkdir(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	write(t, auditlog.Config{Path: path, Signer: key}, 1)
	logs := filepath.Dir(path)
	if err := errors.Join(os.Rename(path, path+".000000000003"), os.Chmod(logs, 0o333),
		os.Chmod(filepath.Dir(logs), 0o755), os.Chmod(filepath.Dir(filepath.Dir(logs)), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(logs, 0o755) })
	failed := make(chan error)
	go func() { // in a thread that ends with it
		runtime.LockOSThread()
		unix.Setfsuid(65534) // root may list everything
		_, err := auditlog.Open(auditlog.Config{Path: path, Signer: key})
		failed <- err
	}()
	if err := <-failed; !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "earlier files") {
		t.Errorf("another log was begun: %v", err)
	}
}
