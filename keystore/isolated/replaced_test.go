//go:build cgo && !nopkcs11

package isolated_test

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// TestClosedAtStart closes a store whose next child does not open: it is not waited for.
func TestClosedAtStart(t *testing.T) {
	token := newToken(t)
	started := make(chan bool, 100)
	s, err := isolated.Open(isolated.Config{Settings: settings(t, hsm.Config{URI: token.URI}), PIN: pinOf(t, token), Command: func() *exec.Cmd {
		started <- true
		if len(started) > 1 {
			return exec.Command("sleep", "60")
		}
		return child()
	}})
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(s.PID(), syscall.SIGKILL)
	eventually(t, "another child", func() bool { return len(started) > 1 })
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it was closed after %v", took)
	}
}
