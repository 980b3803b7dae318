package isolated

import (
	"fmt"
	"time"
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
		if p.hasLate(p.ticks.Add(1)) {
			p.end(fmt.Sprintf("did not answer for %v", p.limit))
		}
	}
}

// hasLate finds calls that are too late at a tick.
func (p *process) hasLate(now int64) (has bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lanes {
		if due := l.due.Load(); due > 0 && now >= due {
			l.late.Store(true)
			has = true
		}
	}
	return has
}

// begin says that a call begins on a lane, which may take so long.
func (p *process) begin(l *lane, limit time.Duration) {
	l.due.Store(p.ticks.Load() + 2 + int64(limit/p.tick)) // the first tick may come at once
}
