package agent

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// A clock ends the context of a request when its time is up, and shortly after, so that
// the program can be informed, its connection.
type clock struct {
	control *http.ResponseController
	cancel  context.CancelCauseFunc
	idle    time.Duration

	mu    sync.Mutex
	timer *time.Timer // nil: no limit
	last  time.Time   // when data last moved
	ended bool
}

// newClock starts a clock for a request that may take total, and longer as long as
// nothing pauses for longer than idle. Each is a limit only if it is positive.
func newClock(ctx context.Context, control *http.ResponseController, total, idle time.Duration) (context.Context, *clock) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &clock{control: control, cancel: cancel, idle: idle, last: time.Now()}
	first := total
	if total <= 0 {
		first = idle
	}
	if first > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.timer = time.AfterFunc(first, c.expire)
	}
	return ctx, c
}

// moved records that something was read or written.
func (c *clock) moved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
}

func (c *clock) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	if more := c.idle - time.Since(c.last); c.idle > 0 && more > 0 {
		c.timer.Reset(more)
		return
	}
	c.ended = true
	c.cancel(context.DeadlineExceeded)
	_ = c.control.SetReadDeadline(time.Now().Add(grace))
	_ = c.control.SetWriteDeadline(time.Now().Add(grace))
}

// stop ends the context, and leaves the connection open.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.cancel(nil)
}
