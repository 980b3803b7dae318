package cli

import (
	"flag"
	"runtime"
	"strconv"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/leaktest"
)

// A leakChecked runs the tests, and fails if they leave goroutines of this module.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	flag.Parse()
	if !given("test.parallel") { // half of the parallel tests wait for something
		flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	return leaktest.Run(m.M)
}

func given(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}
