//go:build cgo && !nopkcs11

package cli

import (
	"os"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestFaultHangs hangs a call of every function that a server calls (three of them in the
// everyday tests): within the wait for the key store all devices except that of the call
// are served or told to try again, and the server continues once the call returns.
func TestFaultHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	const wait = 600 * time.Millisecond
	f := newFaultBench(t, wait)
	functions := []string{"C_Sign", "C_DestroyObject", "C_Initialize"} // of a message, of what is left of it, of a recovery
	if os.Getenv("MSL_SOAK") != "" {
		functions = serving
	}
	for _, function := range functions {
		t.Run(function, func(t *testing.T) { f.hang(t, function, wait) })
	}
}

// A tried message is a message that was sent, and its outcome.
type tried struct {
	err  error
	took time.Duration
}

func (f *faultBench) hang(t *testing.T, function string, wait time.Duration) {
	var known []*msl.Client
	for range 6 {
		known = append(known, f.fresh["PSK"]())
		if err := f.send(known[len(known)-1]); err != nil {
			t.Fatal(err)
		}
	}
	results, under := make(chan tried, 100), 0
	run := func(returning *msl.Client) {
		for _, c := range []*msl.Client{f.fresh["PSK"](), f.fresh["RSA"](), returning} {
			under++
			go func() {
				start := time.Now()
				results <- tried{f.send(c), time.Since(start)}
			}()
		}
	}
	f.client("PSK") // sessions are to be opened again
	hangs := hsmtest.Fault{Function: function, Hang: true, Times: 1}
	f.module.Inject(hangs)
	run(known[0])
	time.Sleep(wait / 4)
	if f.module.Counters().Fired == 0 { // it belongs to a recovery
		f.module.Inject(hangs, hsmtest.Fault{Function: "C_GenerateKey", Code: 0x30, Times: 2}, hsmtest.Fault{Function: "C_SignInit", Code: 0xb3, Times: 2, Skip: 2})
	}
	for _, c := range known[1:] {
		run(c)
		time.Sleep(wait / 2)
	}
	end := time.After(2 * wait)
	for late := false; under > 0 && !late; {
		select {
		case one := <-results:
			under--
			one.judge(t, wait)
		case <-end:
			late = true
		}
	}
	if under > 1 {
		t.Errorf("%d devices have no answer, and one call hangs", under)
	}
	f.module.Clear()
	for ; under > 0; under-- {
		if one := <-results; one.err != nil && !transient(one.err) {
			t.Errorf("who met the call: %v", one.err)
		}
	}
	f.back(t, function)
}

func (one tried) judge(t *testing.T, wait time.Duration) {
	t.Helper()
	if one.err != nil && !transient(one.err) || one.took > 2*wait-wait/10 { // two waits in a row are too much
		t.Errorf("%v after %v", one.err, one.took)
	}
}
