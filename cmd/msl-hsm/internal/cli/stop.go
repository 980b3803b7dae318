package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/throwaway"
	"github.com/msl-hsm/msl-hsm/internal/uncut"
)

// closingTime returns the part of the shutdown time reserved for closing keys and files
// after messages in flight have had the rest.
func closingTime(shutdown time.Duration) time.Duration { return min(time.Second, shutdown/4) }

// oneSignal is how long a repeated signal counts as the first one: timeout, and programs
// that forward signals, send one to a process and a moment later to its group. No person
// reacts that fast.
const oneSignal = 200 * time.Millisecond

// A stopper ends the process of a server or an agent that was told to stop but does
// not: a call into a PKCS #11 module may never return, and nothing in this process can
// end it. A nil stopper leaves that to others.
type stopper struct {
	log *slog.Logger

	mu    sync.Mutex
	grace time.Duration // to end on its own
	doing string        // what the process waits for if it does not end
}

// stoppable makes a context that ends with the first signal to stop. From then on the
// process has its grace time to end on its own; a second signal ends it immediately,
// unless it is a repetition of the first. The caller must end the watch when it is done.
func (p *program) stoppable(parent context.Context, log *slog.Logger) (ctx context.Context, end func()) {
	crashBySignal()
	p.signalsTaken()
	p.stop = &stopper{log: log, grace: config.DefaultShutdown, doing: "start"}
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ended := make(chan struct{})
	go p.stop.watch(signals, cancel, ended)
	return ctx, func() {
		signal.Stop(signals)
		close(ended)
		cancel()
	}
}

// crashBySignal makes a crash end this process by SIGABRT. Otherwise Go ends with 2, the code of a
// wrong configuration, which the units of systemd do not start again.
func crashBySignal() { debug.SetTraceback("crash") }

// leastGrace is for closing keys and files, even if messages in flight get no time at all.
const leastGrace = time.Second

// allow sets the grace time, once it is known: at least leastGrace.
func (s *stopper) allow(grace time.Duration) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grace = max(grace, leastGrace)
}

// during records what the process waits for if it does not end now.
func (s *stopper) during(what string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doing = what
}

func (s *stopper) watch(signals <-chan os.Signal, cancel context.CancelFunc, ended <-chan struct{}) {
	var first os.Signal
	select {
	case <-ended:
		return
	case first = <-signals:
	}
	cancel()
	s.mu.Lock()
	most := s.grace
	s.mu.Unlock()
	came, over := time.Now(), time.After(most)
	for {
		select {
		case <-ended:
			return
		case again := <-signals:
			if again != first || time.Since(came) >= oneSignal {
				s.abandon("a second signal")
			}
		case <-over:
			s.abandon("it did not end within " + most.String())
		}
	}
}

// abandon ends the process. A blocked log must not delay it either.
func (s *stopper) abandon(why string) {
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		throwaway.Sweep()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log.Error("stopped by force", "why", why, "waiting_for", s.doing)
	}()
	select {
	case <-logged:
	case <-time.After(time.Second):
	}
	_, _ = uncut.Wait(uncut.Most)
	os.Exit(exit.Forced)
}
