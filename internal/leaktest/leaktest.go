// Package leaktest finds goroutines that tests have left behind.
package leaktest

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"
)

// Run runs the tests of a package, and fails if they leave goroutines.
func Run(m interface{ Run() int }) int {
	code := m.Run()
	if err := Goroutines(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// Goroutines returns an error that shows the goroutines of this module which are
// still there, besides the one that asks. One that is about to end has some
// seconds to do so.
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
