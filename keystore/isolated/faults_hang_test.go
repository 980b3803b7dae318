//go:build cgo && !nopkcs11

package isolated_test

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// TestChildPauses stops the child for a while: calls that began meanwhile work when it goes
// on, in the same child, and do not wait in a thread each.
func TestChildPauses(t *testing.T) {
	const calls = 48
	w := newWorld(t, isolated.Config{})
	before, pid, threads := sum(t, w.fresh), w.PID(), threadsOf(t)
	stop(t, pid)
	after := make(chan string, calls)
	for range calls {
		go func() { after <- sum(t, w.fresh) }()
	}
	eventually(t, "calls under way", func() bool { return w.UnderWay() == calls })
	if more := threadsOf(t) - threads; more > calls/2 {
		t.Errorf("%d calls that wait take %d threads", calls, more)
	}
	syscall.Kill(pid, syscall.SIGCONT)
	for range calls {
		if got := <-after; got != before || w.PID() != pid {
			t.Errorf("child %d, and before %d; the key computes %x, and before %x", w.PID(), pid, got, before)
		}
	}
}

// threadsOf counts the threads of this process (proc(5)).
func threadsOf(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
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

// TestLookupHangs has a call hang in an operation that may take long, because of its many calls:
// the time of one call decides, and the operation is not made again.
func TestLookupHangs(t *testing.T) {
	w := newWorldOf(t, isolated.Config{Limit: 10 * time.Second}, hsm.Config{CallTimeout: time.Second})
	before, pid := sum(t, w.sealed), w.PID()
	w.module.Inject(hsmtest.Fault{Function: "C_FindObjects", Hang: true, Times: 1})
	failed := make(chan error, 1)
	go func() {
		_, err := w.Lookup("other")
		failed <- err
	}()
	select {
	case err := <-failed:
		if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "does not return from C_FindObjects") {
			t.Errorf("a call that hangs: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("a call that hangs is not given up")
	}
	if after := sum(t, w.sealed); after != before || w.PID() == pid {
		t.Errorf("child %d, and before %d; the key computes %x, and before %x", w.PID(), pid, after, before)
	}
}

// TestWedged has a library find its device again in another process only: the child is replaced,
// with the same keys, although it answers.
func TestWedged(t *testing.T) {
	const limit = 300 * time.Millisecond
	w := newWorld(t, isolated.Config{Limit: limit})
	before, pid := sum(t, w.sealed), w.PID()
	w.module.Inject(hsmtest.Fault{Function: "C_SignInit", Code: pkcs11.CKR_DEVICE_ERROR})
	eventually(t, "the end of the child", func() bool {
		_, err := w.sealed.Sum([]byte("data"))
		if !errors.Is(err, keystore.ErrUnavailable) {
			t.Fatal(err)
		}
		return strings.Contains(w.log.String(), "nothing but failures of its device")
	})
	w.module.Clear() // as another process would find it
	eventually(t, "another child", func() bool {
		after, err := w.sealed.Sum([]byte("data"))
		return err == nil && string(after) == before && w.PID() != pid
	})
}

// TestWedgedForGood has a device fail in each process: each child has twice the time of the one
// before it.
func TestWedgedForGood(t *testing.T) {
	const limit = 200 * time.Millisecond
	w := newWorld(t, isolated.Config{Limit: limit})
	w.module.Inject(hsmtest.Fault{Function: "C_GenerateKeyPair", Code: pkcs11.CKR_DEVICE_ERROR}) // which no start calls
	times := regexp.MustCompile(`nothing but failures of its device for ([0-9.ms]+)`)
	for row := range 2 {
		var vain [][]string
		eventually(t, "the end of the child", func() bool {
			if _, err := w.Generate(keystore.ECDSAP256); !errors.Is(err, keystore.ErrUnavailable) {
				t.Fatal(err)
			}
			vain = times.FindAllStringSubmatch(w.log.String(), -1)
			return len(vain) > row
		})
		if after, err := time.ParseDuration(vain[row][1]); err != nil || after < limit<<row {
			t.Errorf("child %d was ended after %v, %v", row, after, err)
		}
	}
}

// TestRefusedPIN has a token refuse the PIN when it comes back: the child is not replaced, since
// the next one would give the PIN once more.
func TestRefusedPIN(t *testing.T) {
	const limit = time.Second
	w := newWorld(t, isolated.Config{Limit: limit})
	pid, before := w.PID(), w.module.Counters().Calls["C_Login"]
	w.module.Inject(hsmtest.Fault{Function: "C_Login", Code: pkcs11.CKR_PIN_INCORRECT}, hsmtest.Fault{Function: "C_SignInit", Code: pkcs11.CKR_DEVICE_ERROR, Times: 2})
	for end := time.Now().Add(3 * limit / 2); time.Now().Before(end); time.Sleep(limit / 20) {
		if _, err := w.sealed.Sum([]byte("data")); err == nil {
			t.Fatal("a key works without a login")
		}
	}
	if n := w.module.Counters().Calls["C_Login"] - before; n != 1 || w.PID() != pid {
		t.Errorf("%d logins, child %d, and before %d", n, w.PID(), pid)
	}
}

// TestUnclearStart has children get no clear answer to the PIN: they are started after pauses that
// grow.
func TestUnclearStart(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("takes long; MSL_SOAK=1 runs it")
	}
	w := newWorld(t, isolated.Config{})
	before := w.module.Counters().Calls["C_Login"]
	w.module.Inject(hsmtest.Fault{Function: "C_Login", Code: pkcs11.CKR_GENERAL_ERROR})
	if err := syscall.Kill(w.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if n := w.module.Counters().Calls["C_Login"] - before; n == 0 || n > 4 {
		t.Errorf("%d logins", n)
	}
	w.module.Clear()
	eventually(t, "another child", func() bool {
		_, err := w.sealed.Sum([]byte("data"))
		return err == nil
	})
}
