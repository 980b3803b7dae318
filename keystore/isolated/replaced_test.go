//go:build cgo && !nopkcs11

package isolated_test

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/internal/uncut"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// TestChosenVersion has the child end after a version was chosen: the next one seals with it too.
func TestChosenVersion(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	for _, role := range keystore.SealingRoles() {
		if _, err := w.Create(role.Label("msl"), role.Algorithm()); err != nil {
			t.Fatal(err)
		}
		if err := w.SealWith(role.Label("msl"), 1); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		blob, err := w.Seal(w.generate(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		if sealed, err := keystore.ParseSealed(blob); err != nil || sealed.KEKVersion != 1 {
			t.Errorf("sealed with version %d: %v", sealed.KEKVersion, err)
		}
		syscall.Kill(w.PID(), syscall.SIGKILL)
	}
}

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

// TestClosedAtLogin closes a store whose next child is giving the PIN: that is not cut off, since
// SoftHSM writes the file of its token meanwhile. One that hangs does not keep the store.
func TestClosedAtLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, isolated.Config{})
	w.module.Inject(hsmtest.Fault{Function: "C_Login", Hang: true})
	syscall.Kill(w.PID(), syscall.SIGKILL)
	eventually(t, "a login", func() bool { return w.module.Counters().Fired > 0 })
	began := time.Now()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < uncut.Most {
		t.Errorf("the login was cut off after %v", took)
	}
}

// TestOtherReason has a child that cannot be replaced for one reason, and then for another one:
// both are logged.
func TestOtherReason(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	w.module.Inject(hsmtest.Fault{Function: "C_OpenSession", Code: pkcs11.CKR_DEVICE_ERROR})
	syscall.Kill(w.PID(), syscall.SIGKILL)
	eventually(t, "the first reason", func() bool { return strings.Contains(w.log.String(), "CKR_DEVICE_ERROR") })
	w.module.Clear()
	w.module.Inject(hsmtest.Fault{Function: "C_Login", Code: pkcs11.CKR_PIN_INCORRECT})
	eventually(t, "the other reason", func() bool { return strings.Contains(w.log.String(), "CKR_PIN_INCORRECT") })
}
