//go:build cgo && !nopkcs11

package isolated_test

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// TestChildPauses stops the child for a while: a call that began meanwhile works when it goes
// on, in the same child.
func TestChildPauses(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	before, pid := sum(t, w.fresh), w.PID()
	stop(t, pid)
	after := make(chan string)
	began := make(chan struct{})
	go func() {
		close(began)
		after <- sum(t, w.fresh)
	}()
	<-began
	syscall.Kill(pid, syscall.SIGCONT)
	if got := <-after; got != before || w.PID() != pid {
		t.Errorf("child %d, and before %d; the key computes %x, and before %x", w.PID(), pid, got, before)
	}
}

// TestAllCallsHang has as many calls under way as the module does at a time, all of which hang.
// They are given up together, and the next ones work.
func TestAllCallsHang(t *testing.T) {
	w := newWorld(t, isolated.Config{Limit: time.Second})
	before := sum(t, w.sealed)
	w.module.Inject(hsmtest.Fault{Function: "C_Sign", Hang: true, Times: 2})
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			if _, err := w.sealed.Sum([]byte("data")); err != nil && !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("a call beside one that hangs: %v", err)
			}
		})
	}
	calls.Wait()
	w.module.Clear()
	eventually(t, "the same key in another child", func() bool {
		after, err := w.sealed.Sum([]byte("data"))
		return err == nil && string(after) == before
	})
}
