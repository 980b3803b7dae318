package hsm_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestLockDir has another program change the keys of a token, which has another directory for
// temporary files: a key is made when it has ended.
func TestLockDir(t *testing.T) {
	_, token := newStore(t)
	dir := t.TempDir()
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN, LockDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	create := func() error { _, err := s.Create("mac", keystore.HMACSHA256); return err }
	if err := create(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	other, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	go func() { made <- create() }()
	select {
	case err := <-made:
		t.Errorf("a key was made meanwhile: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	other.Close()
	if err := <-made; err != nil {
		t.Error(err)
	}
}
