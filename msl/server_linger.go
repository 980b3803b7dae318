package msl

import (
	"time"
)

// A refused message is charged the time that it took, within these limits, since a sender may
// be slow.
const (
	leastRefused = 50 * time.Microsecond
	mostRefused  = 20 * time.Millisecond
)

// linger delays whoever sent a message that was refused before its sender was
// authenticated. Finding out that a message is garbage takes no turn, since nothing is
// known of it before, so it is paid for afterward: all such messages together get the
// processor share of messages without a session. Canceling ctx does not shorten the
// delay, or hanging up would.
func (a *admission) linger(took time.Duration) {
	pause := a.charge(min(max(took, leastRefused), mostRefused))
	if pause <= 0 {
		return
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	<-timer.C
}

// charge records what a refused message took, and returns how long its sender pays for
// it.
func (a *admission) charge(took time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	limit := a.limit(now)
	if limit >= maxSteps {
		return 0
	}
	room := float64(a.room())
	share := limit * min(1, room/(limit+a.established.smooth))
	if a.owed.Before(now) {
		a.owed = now
	}
	a.owed = a.owed.Add(time.Duration(float64(took) / share))
	if most := now.Add(longestPause); a.owed.After(most) {
		a.owed = most
	}
	return a.owed.Sub(now)
}
