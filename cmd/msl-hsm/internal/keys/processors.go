//go:build cgo && !nopkcs11

package keys

import (
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/pace"
)

// PerProcessor is how much GOMAXPROCS is raised for a PKCS #11 module that is waited for.
const PerProcessor = 4

// distant is the time of an operation from which GOMAXPROCS is raised. A module that computes
// on the same processors would lose a fifth of its speed by that, so it must not be taken
// for one that is waited for because the machine was busy while its token was opened.
const distant = 4 * pace.Slow

var raised sync.Once

// makeWay raises GOMAXPROCS for a module of that latency: Go takes the place of a call
// into C that does not return away only after 20 µs to 10 ms, and until then it runs
// nothing else there. GOMAXPROCS in the environment overrides it. A key store in a process
// of its own has enough of them in any case (keystore/isolated).
func makeWay(latency time.Duration) {
	if latency >= distant && os.Getenv("GOMAXPROCS") == "" {
		raised.Do(func() { runtime.GOMAXPROCS(PerProcessor * runtime.GOMAXPROCS(0)) })
	}
}
