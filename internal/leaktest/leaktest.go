// Package leaktest finds goroutines that tests leave behind.
package leaktest

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"
)

// Run runs the tests of a package, and fails if they leave goroutines behind.
func Run(m interface{ Run() int }) int {
	code := m.Run()
	if err := Goroutines(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// Goroutines returns an error that shows this module's goroutines still running, other
// than the caller. Goroutines that are about to end get a few seconds.
func Goroutines() error {
	var left []string
	for wait := time.Millisecond; wait < 5*time.Second; wait *= 2 {
		if left = goroutines(); len(left) == 0 {
			return nil
		}
		time.Sleep(wait)
	}
	return fmt.Errorf("%d goroutines were left behind:\n\n%w", len(left), errors.New(strings.Join(left, "\n\n")))
}

// goroutines returns the stacks that contain the module's code or were started by it,
// except the caller's.
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
