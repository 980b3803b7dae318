package hsm_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestCalls wants each operation to be reported under the function that does the work, with
// the time in the device, and the wait for it apart.
func TestCalls(t *testing.T) {
	token := softhsm.Temp(t)
	var mu sync.Mutex
	var all []keystore.Call
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN, Sessions: 1, Calls: func(c keystore.Call) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, c)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key, err := s.Create("mac", keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
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
