package mslhttp

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// ErrTimeout ends the context of an exchange that took longer than it may. It is a
// [context.DeadlineExceeded].
var ErrTimeout = fmt.Errorf("mslhttp: the exchange took longer than it may: %w", context.DeadlineExceeded)

// maxReserve is as much time as is ever kept for an error message.
const maxReserve = 3 * time.Second

// reserve is the part of the time for an exchange that is kept for telling the peer
// that it is over: the error message may cost an operation with a key in a device.
func reserve(d time.Duration) time.Duration { return min(d/4, maxReserve) }

// A clock bounds an exchange: its context ends in time for an error message, and
// then its connection takes no more reads, and a little later no more writes.
type clock struct {
	control *http.ResponseController
	cancel  context.CancelCauseFunc
	idle    time.Duration
	reserve time.Duration

	mu      sync.Mutex
	timer   *time.Timer // nil: nothing is bounded
	rolling bool        // every read and write gives the exchange more time
	over    bool
	stopped bool
}

// newClock starts a clock, for one exchange of that time: negative is no bound, and
// then idle alone is one, if it is positive.
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

// roll lets the exchange go on for as long as something moves.
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

// moved says that something was read or written.
func (c *clock) moved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rolling && !c.over && !c.stopped {
		c.timer.Reset(c.idle)
	}
}

func (c *clock) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped || c.over {
		return
	}
	c.over = true
	c.cancel(ErrTimeout)
	_ = c.control.SetReadDeadline(time.Unix(1, 0)) // not every ResponseWriter has deadlines
	_ = c.control.SetWriteDeadline(time.Now().Add(c.reserve))
}

// stop leaves the connection to others, and reports whether the time was over.
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
