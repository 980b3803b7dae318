package cli

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/msl-hsm/msl-hsm/internal/throwaway"
)

// leaveNothing has the process remove its throwaway files before a signal ends it, until the
// function that it returns is called. Signals that the parent had ignored, as nohup does, are
// ignored still.
func leaveNothing() (over func()) {
	ending := slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, signal.Ignored)
	if len(ending) == 0 { // Notify would take up all that there are
		return func() {}
	}
	signals, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, ending...)
	go func() {
		select {
		case <-ended:
		case s := <-signals:
			defer throwaway.Sweep()()
			signal.Stop(signals)
			_ = syscall.Kill(os.Getpid(), s.(syscall.Signal)) // which has its way now
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(ended)
	})
}

// untilTold makes a context that ends with the first signal to stop. The command then ends by
// itself, and removes what it made.
func (p *program) untilTold(parent context.Context) (context.Context, context.CancelFunc) {
	p.signalsTaken()
	return signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
}
