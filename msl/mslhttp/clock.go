package mslhttp

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// ErrTimeout is the cause that ends the context of an exchange when its time is up. It
// wraps [context.DeadlineExceeded].
var ErrTimeout = fmt.Errorf("mslhttp: the exchange took too long: %w", context.DeadlineExceeded)

// maxReserve is the longest time kept for an error message.
const maxReserve = 3 * time.Second

// reserve returns the part of an exchange's time kept for informing the peer that time is
// up: the error message may need an operation with a key in a device.
func reserve(d time.Duration) time.Duration { return min(d/4, maxReserve) }

// A clock bounds an exchange. Its context ends early enough to send an error message;
// reads from its connection then fail, and a little later writes, too.
type clock struct {
	control *http.ResponseController
	cancel  context.CancelCauseFunc
	idle    time.Duration
	reserve time.Duration

	mu      sync.Mutex
	timer   *time.Timer // nil: nothing is bounded
	rolling bool        // every read and write extends the time of the exchange
	proven  bool        // the sender is authenticated: its request may take long, as long as data moves
	last    time.Time   // when data last moved
	over    bool
	stopped bool
}

// newClock starts a clock for one exchange that may take total. If total is negative,
// only idle limits the exchange, and only if it is positive.
func newClock(ctx context.Context, control *http.ResponseController, total, idle time.Duration) (context.Context, *clock) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &clock{control: control, cancel: cancel, idle: idle}
	switch {
	case total > 0:
		c.reserve = reserve(total)
		c.timer = time.AfterFunc(total-c.reserve, c.expire)
	case idle > 0:
		c.roll()
	}
	return ctx, c
}

// roll lets the exchange continue as long as data moves.
func (c *clock) roll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle <= 0 || c.rolling || c.over || c.stopped {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.rolling, c.reserve = true, reserve(c.idle)
	c.timer = time.AfterFunc(c.idle, c.expire)
}

// moved records that something was read or written.
func (c *clock) moved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	if c.rolling && !c.over && !c.stopped {
		c.timer.Reset(c.idle)
	}
}

// prove records that the sender proved its identity.
func (c *clock) prove() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proven = true
}

// more is how much time beyond the total a request that is still arriving has.
func (c *clock) more() time.Duration {
	if !c.proven || c.rolling || c.idle <= 0 || c.last.IsZero() {
		return 0
	}
	return c.idle - time.Since(c.last)
}

func (c *clock) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped || c.over {
		return
	}
	if more := c.more(); more > 0 {
		c.timer.Reset(more)
		return
	}
	c.over = true
	c.cancel(ErrTimeout)
	_ = c.control.SetReadDeadline(time.Unix(1, 0)) // not every ResponseWriter has deadlines
	_ = c.control.SetWriteDeadline(time.Now().Add(c.reserve))
}

// stop releases the connection, and reports whether time was up.
func (c *clock) stop() (over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.stopped = true
	c.cancel(nil)
	return c.over
}
