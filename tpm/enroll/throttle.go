package enroll

import (
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A Window counts what several authorities do together.
type Window interface {
	// Take takes from what may be done now, at most want: a bucket that fills with so many
	// in a second, and is full with twice as many and one. It returns how many it took.
	Take(ctx context.Context, perSecond float64, want int) (taken int, err error)
}

// A throttle limits the messages of an authority, or of all that have its window.
type throttle struct {
	own       *rate.Limiter
	perSecond float64
	window    Window // or nil

	mu     sync.Mutex
	share  int       // of the window, which was taken and not used
	closed time.Time // until then the window is not asked
}

func newThrottle(perSecond float64, w Window) *throttle {
	return &throttle{own: rate.NewLimiter(rate.Limit(perSecond), int(2*perSecond)+1), perSecond: perSecond, window: w}
}

// allow reports whether one more message may be handled now.
func (t *throttle) allow(ctx context.Context) (bool, error) {
	if t.window == nil {
		return t.own.Allow(), nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.share == 0 && time.Now().Before(t.closed) {
		return false, nil
	}
	if t.share == 0 {
		if err := t.ask(ctx); err != nil || t.share == 0 {
			return false, err
		}
	}
	t.share--
	return true, nil
}

// ask takes as much of the window as a tenth of a second has. Where that is nothing, a flood
// of messages costs no flood of requests.
func (t *throttle) ask(ctx context.Context) (err error) {
	const pause = 100 * time.Millisecond
	want := max(1, int(math.Ceil(t.perSecond*pause.Seconds())))
	if t.share, err = t.window.Take(ctx, t.perSecond, want); err == nil && t.share == 0 {
		t.closed = time.Now().Add(pause)
	}
	return err
}
