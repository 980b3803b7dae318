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
	functions := []string{"C_Sign", "C_DestroyObject", "C_Initialize"} // of a message, of what is left of it, of a recovery
	if os.Getenv("MSL_SOAK") != "" {
		functions = serving
	}
	for _, function := range functions {
		t.Run(function, func(t *testing.T) {
			wait := 600 * time.Millisecond
			for late := hangFor(t, function, wait); late > 0; late = hangFor(t, function, wait) {
				if wait *= 4; wait > 10*time.Second {
					t.Fatalf("%d devices are served too late, however long the wait is", late)
				}
			}
		})
	}
}

// hangFor counts the devices that are served too late, as they are on a busy machine, too.
func hangFor(t *testing.T, function string, wait time.Duration) (late int) {
	t.Run(wait.String(), func(t *testing.T) { late = newFaultBench(t, wait).hang(t, function, wait) })
	return late
}

// A tried message is a message that was sent, and its outcome.
type tried struct {
	err  error
	took time.Duration
}

func (f *faultBench) hang(t *testing.T, function string, wait time.Duration) (late int) {
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
	for over := false; under > 0 && !over; {
		select {
		case one := <-results:
			under--
			late += one.judge(t, wait)
		case <-end:
			over = true
		}
	}
	late += max(0, under-1) // whose call hangs
	f.module.Clear()
	for ; under > 0; under-- {
		if one := <-results; one.err != nil && !transient(one.err) {
			t.Errorf("who met the call: %v", one.err)
		}
	}
	f.back(t, function)
	return late
}

// judge returns 1 for what took too long.
func (one tried) judge(t *testing.T, wait time.Duration) (late int) {
	t.Helper()
	if one.err != nil && !transient(one.err) {
		t.Errorf("%v after %v", one.err, one.took)
	}
	if one.took > 2*wait-wait/10 { // two waits in a row are too much
		t.Logf("%v after %v", one.err, one.took)
		return 1
	}
	return 0
}
