package hsm_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestCalls wants each operation to be reported under the function that does the work, with
// the time in the device, and the wait for it apart.
func TestCalls(t *testing.T) {
	var mu sync.Mutex
	var all []keystore.Call
	s, m := newFaulty(t, hsm.Config{Sessions: 1, Calls: func(c keystore.Call) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, c)
	}})
	key, err := s.Create("mac", keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	m.Inject(hsmtest.Fault{Function: "C_Sign", Delay: 20 * time.Millisecond}) // long enough for the others to come
	all = nil
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			if _, err := key.Key.(keystore.MAC).Sum(make([]byte, 1<<20)); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	var queue, run time.Duration
	for _, c := range all {
		if c.Function != "C_Sign" || c.Err != nil || c.Run <= 0 || c.Queue < 0 {
			t.Errorf("%+v", c)
		}
		queue, run = queue+c.Queue, run+c.Run
	}
	if len(all) != 8 || queue < run/8 {
		t.Errorf("%d calls waited %v and ran %v: with one session they take turns", len(all), queue, run)
	}
}

// TestCallsOfOperations names the function of operations that need several.
func TestCallsOfOperations(t *testing.T) {
	token := softhsm.Temp(t)
	seen := map[string]int{}
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN, Sessions: 1, Calls: func(c keystore.Call) { seen[c.Function]++ }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	clear(seen)
	_, err = s.Lookup("nothing")
	if !errors.Is(err, keystore.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := s.Generate(keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"C_FindObjects", "C_GenerateKey"} {
		if seen[want] == 0 {
			t.Errorf("no %s in %v", want, seen)
		}
	}
	if seen[""] != 0 || seen["C_GetAttributeValue"] > 0 && seen["C_GenerateKey"] == 0 {
		t.Errorf("%v", seen)
	}
}

// TestCallsWithoutDevice wants each operation that fails to be reported, also while nothing
// can reach the device: else its failures seem to end when it is lost for good.
func TestCallsWithoutDevice(t *testing.T) {
	gone := hsmtest.Fault{Function: "C_Sign", Code: pkcs11.CKR_SESSION_HANDLE_INVALID}
	for what, faults := range map[string][]hsmtest.Fault{
		"lost":             {{Code: pkcs11.CKR_DEVICE_ERROR}},
		"hung":             {{Function: "C_SignInit", Hang: true, Times: 1}},
		"without sessions": {gone, {Function: "C_OpenSession", Code: pkcs11.CKR_DEVICE_MEMORY}},
		"with too few":     {gone, {Function: "C_OpenSession", Code: pkcs11.CKR_SESSION_COUNT}},
	} {
		t.Run(what, func(t *testing.T) {
			var failed atomic.Int64
			s, m := newFaulty(t, hsm.Config{Wait: 200 * time.Millisecond, CallTimeout: time.Second, Calls: func(c keystore.Call) {
				if c.Err != nil {
					failed.Add(1)
				}
			}})
			k, err := s.Generate(keystore.HMACSHA256)
			if err != nil {
				t.Fatal(err)
			}
			sum := func() error { _, err := k.(keystore.MAC).Sum(nil); return err }
			m.Inject(faults...)
			var first sync.WaitGroup
			first.Go(func() { _ = sum() }) // hangs, or loses the sessions
			for m.Counters().Fired == 0 || sum() == nil {
				time.Sleep(5 * time.Millisecond)
			}
			if what != "hung" {
				first.Wait()
			}
			before := failed.Load()
			for range 5 {
				if sum() == nil {
					t.Error("an operation succeeds")
				}
			}
			if n := failed.Load() - before; n != 5 {
				t.Errorf("5 operations failed, and %d were reported", n)
			}
			m.Clear()
		})
	}
}
