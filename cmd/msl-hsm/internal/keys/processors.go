//go:build cgo && !nopkcs11

package keys

import (
	"os"
	"runtime"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/pace"
)

// AtOnce is the least GOMAXPROCS for a PKCS #11 module that is waited for. Machines with more
// processors find others free; there, several times as many would let Go's garbage collector,
// which takes a quarter of them, keep all processors busy.
const AtOnce = 8

// distant is the time of an operation from which GOMAXPROCS is raised. A module that computes
// on the same processors would lose a fifth of its speed by that, so it must not be taken
// for one that is waited for because the machine was busy while its token was opened.
const distant = 4 * pace.Slow

// makeWay raises GOMAXPROCS to AtOnce for a module of that latency: Go takes the place of a call
// into C that does not return away only after 20 µs to 10 ms, and until then it runs
// nothing else there. GOMAXPROCS in the environment overrides it. A key store in a process
// of its own has enough of them in any case (keystore/isolated).
func makeWay(latency time.Duration) {
	if latency >= distant && os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < AtOnce {
		runtime.GOMAXPROCS(AtOnce)
	}
}
