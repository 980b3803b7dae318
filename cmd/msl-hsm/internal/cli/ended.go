package cli

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/msl-hsm/msl-hsm/internal/throwaway"
	"github.com/msl-hsm/msl-hsm/internal/uncut"
)

// leaveNothing makes the process remove its throwaway files before a signal ends it, and end what
// it writes to a token, until the returned function is called. If a signal came before, that
// function does not return. Signals that the parent ignored, as with nohup,
// stay ignored.
func leaveNothing() (over func()) {
	ending := slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, signal.Ignored)
	if len(ending) == 0 { // Notify would otherwise catch all signals
		return func() {}
	}
	signals, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, ending...)
	var ends sync.Mutex // locked for good once a signal ends the process
	go func() {
		select {
		case <-ended:
		case s := <-signals:
			ends.Lock()
			_, _ = uncut.Wait(uncut.Most)
			defer throwaway.Sweep()()
			signal.Stop(signals)
			_ = syscall.Kill(os.Getpid(), s.(syscall.Signal)) // now takes effect
		}
	}()
	return sync.OnceFunc(func() {
		ends.Lock()
		defer ends.Unlock()
		signal.Stop(signals)
		close(ended)
	})
}

// untilTold makes a context that ends with the first signal to stop. The command then
// ends on its own, and removes what it made.
func (p *program) untilTold(parent context.Context) (context.Context, context.CancelFunc) {
	p.signalsTaken()
	return signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
}
