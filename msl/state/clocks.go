package state

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// clocks compares the clock here with those of the servers that share a state, by the times that
// they note. One time that is off decides nothing: this process may have been paused.
type clocks struct {
	mu      sync.Mutex
	mine    time.Time     // as it was noted by this server
	seen    time.Time     // as it was noted last
	apart   time.Duration // by which the others were ahead at the newest comparison, or 0 if they agree
	at      time.Time     // of that comparison
	certain bool          // it was so twice in a row
}

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
	first := c.seen.IsZero()
	if noted.Equal(c.seen) {
		return
	}
	if c.seen = noted; first || noted.Equal(c.mine) {
		return
	}
	before := c.certain
	apart := noted.Sub(now)
	if apart.Abs() <= mostApart {
		apart = 0
	}
	c.certain = apart != 0 && c.apart != 0
	c.apart, c.at = apart, now
	switch {
	case c.certain && !before:
		log.Warn("the clock here and that of another server of this state differ: correct the one that is wrong", "other_ahead_by", apart.Round(time.Second).String())
	case before && !c.certain:
		log.Info("the clocks of the servers agree again")
	}
}

// ClockApart returns by how much the clock of another server that shares the state is ahead of the
// one here, negative if it is behind; or zero if they are at most five minutes apart, or no other
// server has noted the time for two minutes. It takes them two minutes to notice a difference.
func (c *clocks) ClockApart() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.certain || time.Since(c.at) > 2*noteEvery+restAfterError {
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
