//go:build cgo && !nopkcs11

package isolated_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// TestPatient has a list and a look-up that take many short calls, and another program that changes the keys of
// the token: the child is not replaced, although all take longer than a call may.
func TestPatient(t *testing.T) {
	const limit = 500 * time.Millisecond
	t.Setenv("TMPDIR", t.TempDir())
	w := newWorld(t, isolated.Config{Limit: limit})
	syscall.Kill(w.PID(), syscall.SIGKILL) // so that nothing was looked up
	eventually(t, "another child", func() bool { return w.Random(make([]byte, 1)) == nil })
	pid := w.PID()
	w.module.Inject(hsmtest.Fault{Function: "C_SignInit", Delay: limit / 5}) // eight a version
	if _, err := w.Lookup("mac"); err != nil {
		t.Error(err)
	}
	w.module.Clear()
	w.module.Inject(hsmtest.Fault{Function: "C_GetAttributeValue", Delay: limit / 8})
	if _, err := w.List(); err != nil {
		t.Error(err)
	}
	w.module.Clear()
	time.AfterFunc(3*limit/2, lockKeys(t))
	if _, err := w.Create("mac", keystore.HMACSHA256); err != nil {
		t.Error(err)
	}
	time.AfterFunc(3*limit/2, lockKeys(t))
	if err := w.Destroy("mac", 1); err != nil {
		t.Error(err)
	}
	if w.PID() != pid {
		t.Errorf("the child was replaced: %s", w.log)
	}
}

// lockKeys is another program that changes the keys of the token, until unlock.
func lockKeys(t *testing.T) (unlock func()) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(os.TempDir(), "msl-hsm-*", "keys-*.lock"))
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	f, err := os.Open(all[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}
