package cli

import (
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// A leakChecked runs the tests, and fails if they leave goroutines of this module.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
	left := goroutines()
	for wait := time.Millisecond; len(left) > 0 && wait < 5*time.Second; wait *= 2 {
		time.Sleep(wait)
		left = goroutines()
	}
	if len(left) == 0 {
		return code
	}
	fmt.Fprintf(os.Stderr, "goroutines were left behind:\n\n%s\n", strings.Join(left, "\n\n"))
	return max(code, 1)
}

// goroutines are the stacks that the module's code is on, or that it began, but
// for the one that asks.
func goroutines() (left []string) {
	var all strings.Builder
	pprof.Lookup("goroutine").WriteTo(&all, 2)
	for _, stack := range strings.Split(all.String(), "\n\n")[1:] {
		if strings.Contains(stack, "msl-hsm/") {
			left = append(left, stack)
		}
	}
	return left
}
