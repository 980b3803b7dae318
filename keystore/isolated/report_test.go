//go:build cgo && !nopkcs11

package isolated_test

import (
	"errors"
	"sync"
	"syscall"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// TestReport has the child tell of its calls, of those that fail, and of what it holds.
func TestReport(t *testing.T) {
	var mu sync.Mutex
	counts, failed := map[string]int{}, 0
	w := newWorld(t, isolated.Config{Calls: func(c keystore.Call) {
		mu.Lock()
		defer mu.Unlock()
		counts[c.Function]++
		if errors.Is(c.Err, keystore.ErrUnavailable) {
			failed++
		}
		if c.Run <= 0 && c.Err == nil {
			t.Errorf("%s took %v", c.Function, c.Run)
		}
	}})
	const calls = 20
	for range calls {
		sum(t, w.sealed)
	}
	w.module.Inject(hsmtest.Fault{Function: "C_Sign", Code: 0x30, Times: 1}) // CKR_DEVICE_ERROR
	sum(t, w.sealed)
	eventually(t, "the calls to be told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return counts["C_Sign"] > calls && failed > 0
	})
	eventually(t, "the sessions to be told", func() bool { d, ok := w.Device(); return ok && d.Open > 0 })
	before, _ := w.Device()
	syscall.Kill(w.PID(), syscall.SIGKILL)
	sum(t, w.sealed)
	eventually(t, "another opening to be told", func() bool { d, ok := w.Device(); return ok && d.Epoch > before.Epoch-1 && d.Open > 0 })
	w.module.Inject(hsmtest.Fault{Function: "C_Initialize", Code: 0x30})
	syscall.Kill(w.PID(), syscall.SIGKILL)
	for range 3 {
		if _, err := w.sealed.Sum(nil); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("without a child: %v", err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if counts[""] != 3 {
		t.Errorf("3 operations failed without a child, and %d were reported", counts[""])
	}
}
