package isolated

import (
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/uncut"
)

// ticksOf returns the interval at which calls are looked at that must not take longer than
// limit. To look at all of them now and then costs less than a timer for each.
func ticksOf(limit time.Duration) time.Duration {
	return min(max(limit/8, 5*time.Millisecond), time.Second)
}

// watchCalls ends the child when a call has taken longer than it may, and returns at its end.
func (p *process) watchCalls() {
	ticker := time.NewTicker(p.tick)
	defer ticker.Stop()
	for {
		select {
		case <-p.ended:
			return
		case <-ticker.C:
		}
		if limit := p.lateFor(p.ticks.Add(1)); limit > 0 {
			p.end(fmt.Sprintf("did not answer for %v", limit))
		}
	}
}

// lateFor finds calls that are too late at a tick, and returns how long one of them could take, or 0.
func (p *process) lateFor(now int64) (limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lanes {
		if due := l.due.Load(); due > 0 && now >= due {
			l.late.Store(true)
			limit = time.Duration(l.limit.Load())
		}
	}
	return limit
}

// begin says that a call begins on a lane, which may take so long.
func (p *process) begin(l *lane, limit time.Duration) {
	l.limit.Store(int64(limit))
	l.due.Store(p.ticks.Load() + 2 + int64(limit/p.tick)) // the first tick may come at once
}

// kill ends the child, but not in the middle of a login, which it may finish first: see uncut.
func (p *process) kill() {
	if mayLogIn := !p.ready.Load() || p.login.Load(); mayLogIn && p.command.Process.Signal(orphaned) == nil {
		time.AfterFunc(2*uncut.Most, func() { p.command.Process.Kill() })
		return
	}
	p.command.Process.Kill()
}
