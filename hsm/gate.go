package hsm

import (
	"sync"
	"sync/atomic"
	"time"
)

// A gate lets calls into a module until a caller needs the module exclusively: a call
// during C_Finalize crashes most libraries. Every wait has a time limit, since a call
// into a module may never return.
type gate struct {
	calls atomic.Int64              // under way, or about to find out that the gate is shut
	shut  atomic.Pointer[time.Time] // since when, or nil
	alone sync.Mutex                // held by whoever shut it
}

// gatePoll is how often the state of the gate is looked at where it has to be
// waited for, which is seldom.
const gatePoll = time.Millisecond

// enter begins a call, unless the gate stays shut for the time.
func (g *gate) enter(wait time.Duration) bool {
	if g.tryEnter() {
		return true
	}
	for start := time.Now(); ; time.Sleep(gatePoll) {
		switch since := g.shut.Load(); {
		case since == nil && g.tryEnter():
			return true
		case since != nil && time.Now().After(patience(start, since, wait)):
			return false
		}
	}
}

func (g *gate) tryEnter() bool {
	g.calls.Add(1)
	open := g.shut.Load() == nil
	if !open {
		g.calls.Add(-1)
	}
	return open
}

func (g *gate) leave() { g.calls.Add(-1) }

// close shuts the gate and waits until no call is under way. It leaves the gate
// open where that takes longer than the time.
func (g *gate) close(wait time.Duration) bool {
	end := time.Now().Add(wait)
	for !g.alone.TryLock() {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(gatePoll)
	}
	now := time.Now()
	g.shut.Store(&now)
	for g.calls.Load() > 0 {
		if time.Now().After(end) {
			g.open()
			return false
		}
		time.Sleep(gatePoll)
	}
	return true
}

// open lets calls in again after close.
func (g *gate) open() {
	g.shut.Store(nil)
	g.alone.Unlock()
}
