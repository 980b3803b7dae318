package cli

import (
	"flag"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
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
	heedSignals()
	return leaktest.Run(m.M)
}

// heedSignals lets the commands that tests start end by signals that the tests themselves ignore,
// because nohup or a shell in the background started them: commands inherit that, but no handler.
func heedSignals() {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

func given(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}
