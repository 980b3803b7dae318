package hsm

import (
	"sync"
	"time"
)

// A gate lets calls into a module until somebody wants the module for himself: a
// call that meets C_Finalize crashes in most libraries. No wait at it is longer
// than the caller says, since a call into a module may never return.
type gate struct {
	mu    sync.Mutex
	calls int           // under way
	shut  chan struct{} // not nil while the gate is shut; closed when it opens
	empty chan struct{} // not nil while somebody waits for the last call
}

// enter begins a call, unless the gate stays shut for the time.
func (g *gate) enter(wait time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil && !g.opened(wait) {
		return false
	}
	g.calls++
	return true
}

// opened waits until the gate is open. The caller holds mu.
func (g *gate) opened(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for g.shut != nil {
		shut := g.shut
		g.mu.Unlock()
		expired := false
		select {
		case <-shut:
		case <-timer.C:
			expired = true
		}
		g.mu.Lock()
		if expired {
			return g.shut == nil
		}
	}
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
	if g.calls == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// close shuts the gate and waits until no call is under way. It leaves the gate
// open where that takes longer than the time.
func (g *gate) close(wait time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.opened(wait) {
		return false
	}
	g.shut = make(chan struct{})
	if g.calls == 0 {
		return true
	}
	g.empty = make(chan struct{})
	empty := g.empty
	g.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-empty:
	case <-timer.C:
	}
	g.mu.Lock()
	if g.calls == 0 {
		return true
	}
	g.empty = nil
	g.reopen()
	return false
}

// open lets calls in again after close.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reopen()
}

func (g *gate) reopen() {
	close(g.shut)
	g.shut = nil
}
