package state

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// clocks compares the clock here with those of the servers that share a state, by the times that
// they note. One time that is off decides nothing: this process may have been paused. A time that
// agrees decides nothing either: there may be a third server.
type clocks struct {
	mu      sync.Mutex
	mine    time.Time     // as it was noted by this server
	seen    time.Time     // as it was noted last
	apart   time.Duration // by which another server was ahead when it was off last
	since   time.Time     // of the first comparison that was off, with no long pause until
	at      time.Time     // the last one that was
	certain bool
}

const (
	offFor   = 2*noteEvery + restAfterError // so long, a comparison that was off counts
	offLeast = noteEvery / 2                // between two that are certain
)

// own records what this server notes.
func (c *clocks) own(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mine = now.Truncate(time.Second)
}

// compare takes the time noted last, which is new if it has changed since the last call.
func (c *clocks) compare(noted, now time.Time, log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.certain && now.Sub(c.at) > offFor {
		c.certain = false
		log.Info("the clock of no other server of this state differs anymore")
	}
	first := c.seen.IsZero()
	if noted.Equal(c.seen) {
		return
	}
	if c.seen = noted; first || noted.Equal(c.mine) {
		return
	}
	apart := noted.Sub(now)
	if apart.Abs() <= mostApart {
		return
	}
	switch {
	case c.at.IsZero() || now.Sub(c.at) > offFor:
		c.since = now
	case !c.certain && now.Sub(c.since) >= offLeast:
		c.certain = true
		log.Warn("the clock here and that of another server of this state differ: correct the one that is wrong", "other_ahead_by", apart.Round(time.Second).String())
	}
	c.apart, c.at = apart, now
}

// ClockApart returns by how much the clock of another server that shares the state is ahead of the
// one here, negative if it is behind; or zero if no other one has noted a time for two minutes that
// is off by more than five minutes. It takes them two minutes to notice a difference.
func (c *clocks) ClockApart() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.certain || time.Since(c.at) > offFor {
		return 0
	}
	return c.apart
}

// Ahead returns by how much the time that a server noted last is ahead of the clock here, or zero
// if it is not by more than five minutes. Of a shared state that no server uses, that time is old.
func (r records) Ahead(ctx context.Context) (time.Duration, error) {
	noted, err := r.noted(ctx)
	if ahead := time.Until(noted); err == nil && ahead > mostApart {
		return ahead, nil
	}
	return 0, err
}
