// Package fipstest runs tests in Go's FIPS 140-3 modes (GODEBUG=fips140), which are fixed
// when a process starts.
package fipstest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Run runs tests of this test program again, in one process for each of the modes on and
// only. run and skip are patterns as for go test -run and -skip; an empty skip skips
// none. A mode in which no test ran has failed. The tests must not call Run themselves.
func Run(t *testing.T, run, skip string) {
	t.Helper()
	for _, mode := range []string{"on", "only"} {
		t.Run(mode, func(t *testing.T) { In(t, mode, run, skip) })
	}
}

// In is [Run] in one mode.
func In(t *testing.T, mode, run, skip string) {
	t.Helper()
	args := []string{"-test.run=" + run, "-test.v"}
	if skip != "" {
		args = append(args, "-test.skip="+skip)
	}
	for range 5 {
		c := exec.Command(os.Args[0], args...)
		c.Env = append(os.Environ(), "GODEBUG=fips140="+mode, "MSL_SOAK=")
		out, err := c.CombinedOutput()
		if err != nil && strings.Contains(string(out), noEntropy) {
			continue
		}
		if err != nil || !strings.Contains(string(out), "--- PASS: ") {
			t.Errorf("fips140=%s: %v\n%s", mode, err, out)
		}
		return
	}
	t.Skipf("this machine is too busy for the entropy source of Go: %s", noEntropy)
}

// noEntropy ends a process in which Go's module gets no random numbers: it derives them
// from memory access times, which it finds not random enough on some busy machines.
const noEntropy = "fips140/drbg: failed to obtain initial entropy"
