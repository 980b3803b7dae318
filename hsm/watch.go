package hsm

import (
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A stuckCall is one that has not returned in time.
type stuckCall struct {
	function string
	since    time.Time
}

func (c *stuckCall) err() error {
	return fmt.Errorf("hsm: %s has not returned for %v: %w", c.function, time.Since(c.since).Round(time.Second), keystore.ErrUnavailable)
}

// watch looks for calls that do not return within limit, until the store is
// closed. While there is one the store is unavailable: to wait for more of them
// would bind a thread each.
func (c *connection) watch(limit time.Duration) {
	interval := min(max(limit/8, 5*time.Millisecond), time.Second)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-ticker.C:
		}
		now := c.ticks.Add(1)
		stuck, told := c.findStuck(now, interval, limit), c.stuck.Load()
		switch {
		case stuck != nil && told == nil:
			c.log.Error("device lost: a call into the PKCS #11 module does not return", "function", stuck.function, "since", stuck.since, "call_timeout", limit)
		case stuck == nil && told != nil:
			c.log.Info("device back: the call has returned", "function", told.function)
		}
		if stuck != nil && told != nil && stuck.function == told.function {
			stuck.since = told.since
		}
		c.stuck.Store(stuck)
	}
}

// findStuck returns the call that has been under way longest, if for longer than
// limit. Calls tell in ticks when they began: to ask the clock costs as much as a
// part of a call.
func (c *connection) findStuck(now int64, tick, limit time.Duration) (stuck *stuckCall) {
	longest := time.Duration(0)
	for _, own := range append(append([]*session{&c.keeper}, c.sessions.all...), c.anchors.all...) {
		since := own.since.Load()
		if since == 0 {
			continue
		}
		function, took := doing(uint(own.shown.Load())), time.Duration(now-since)*tick
		if took < limitOf(function, limit) || took <= longest {
			continue
		}
		longest, stuck = took, &stuckCall{function, time.Now().Add(-took)}
	}
	return stuck
}

// limitOf is the limit for a function: to find primes takes some devices minutes.
func limitOf(function string, limit time.Duration) time.Duration {
	if function == "C_GenerateKeyPair" {
		return 12 * limit
	}
	return limit
}
