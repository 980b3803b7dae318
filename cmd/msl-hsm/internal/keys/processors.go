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

var raised sync.Once

// makeWay raises GOMAXPROCS for a module of that latency: Go takes the place of a call
// into C that does not return away only after 20 µs to 10 ms, and until then it runs
// nothing else there. GOMAXPROCS in the environment overrides it. A key store in a process
// of its own has enough of them in any case (keystore/isolated).
func makeWay(latency time.Duration) {
	if latency >= pace.Slow && os.Getenv("GOMAXPROCS") == "" {
		raised.Do(func() { runtime.GOMAXPROCS(PerProcessor * runtime.GOMAXPROCS(0)) })
	}
}
