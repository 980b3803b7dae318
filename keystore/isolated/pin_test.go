//go:build cgo && !nopkcs11

package isolated_test

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// TestRenewPIN gives a store another PIN, which each child from then on logs in with. One that
// was refused is not given again.
func TestRenewPIN(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	renew := func(pin *lockedmem.Buffer) {
		t.Helper()
		if err := w.RenewPIN(pin); err != nil {
			t.Fatal(err)
		}
	}
	renew(lockedmem.Copy([]byte("another one")))
	sum(t, w.sealed) // as long as the device stays
	syscall.Kill(w.PID(), syscall.SIGKILL)
	eventually(t, "a refused PIN", func() bool { _, err := w.sealed.Sum(nil); return errors.Is(err, keystore.ErrPIN) })
	renew(lockedmem.Copy([]byte("another one")))
	if _, err := w.sealed.Sum(nil); !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("with the same PIN again: %v", err)
	}
	renew(pinOf(t, w.token))
	sum(t, w.sealed) // which waits for the child that has the right one
}

// TestRereadPIN has the PIN read again for the child that takes the place of another one.
func TestRereadPIN(t *testing.T) {
	var right atomic.Pointer[lockedmem.Buffer]
	var read atomic.Int64
	w := newWorld(t, isolated.Config{ReadPIN: func() (*lockedmem.Buffer, error) {
		if read.Add(1) == 1 {
			return nil, errors.New("not now")
		}
		return lockedmem.Copy(right.Load().Bytes()), nil
	}})
	pin := pinOf(t, w.token)
	defer pin.Close()
	right.Store(pin)
	syscall.Kill(w.PID(), syscall.SIGKILL)
	sum(t, w.sealed) // with the former PIN
	if err := w.RenewPIN(lockedmem.Copy([]byte("another one"))); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(w.PID(), syscall.SIGKILL)
	eventually(t, "the PIN that is read", func() bool { _, err := w.sealed.Sum(nil); return err == nil })
	if n := read.Load(); n != 2 {
		t.Errorf("the PIN was read %d times", n)
	}
}
