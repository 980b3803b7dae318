//go:build cgo && !nopkcs11

package cli

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// TestGarbage bounds what both sides of a round trip of 1 KiB leave to the garbage collector.
// The collector does not run meanwhile: it would take what is kept for the next message.
func TestGarbage(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector drops memory that is kept for the next message")
	}
	store := soft.New()
	defer store.Close()
	n := newBench(t, store)
	c := n.device("PSK")()
	defer c.Close()
	echo(t, c, true)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // each processor keeps memory of its own
	const messages = 1000
	var before, after runtime.MemStats
	for i := range messages + 100 {
		if i == 100 { // the first ones make what is kept
			runtime.ReadMemStats(&before)
		}
		echo(t, c, false)
	}
	runtime.ReadMemStats(&after)
	if size := (after.TotalAlloc - before.TotalAlloc) / messages; size > 10_000 {
		t.Errorf("%d bytes, want at most 10,000", size)
	}
	if count := (after.Mallocs - before.Mallocs) / messages; count > 60 {
		t.Errorf("%d allocations, want at most 60", count)
	}
}
