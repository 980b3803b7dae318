package enroll

import (
	"cmp"
	"context"
	"math"
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

	turn   chan struct{} // holds one while a message looks at what follows
	share  int           // of the window, which was taken and not used
	closed time.Time     // until then the window is not asked
	lost   error         // why it did not answer
}

func newThrottle(perSecond float64, w Window) *throttle {
	return &throttle{
		own: rate.NewLimiter(rate.Limit(perSecond), int(2*perSecond)+1), perSecond: perSecond,
		window: w, turn: make(chan struct{}, 1),
	}
}

// allow reports whether one more message may be handled now.
func (t *throttle) allow(ctx context.Context) (bool, error) {
	if t.window == nil {
		return t.own.Allow(), nil
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if t.share == 0 && !time.Now().Before(t.closed) {
		if err := t.ask(ctx); err != nil {
			return false, err
		}
	}
	if t.share == 0 {
		return false, t.lost
	}
	t.share--
	return true, nil
}

// ask takes as much of the window as a tenth of a second has. Where that is nothing, or no
// answer comes, a flood of messages costs no flood of requests, and those that wait do not
// each wait for an answer of their own. What a lost answer took is not used.
func (t *throttle) ask(ctx context.Context) error {
	const pause = 100 * time.Millisecond
	want := max(1, int(math.Ceil(t.perSecond*pause.Seconds())))
	taken, err := t.window.Take(ctx, t.perSecond, want)
	if ctx.Err() != nil { // which says nothing of the window
		return cmp.Or(err, ctx.Err())
	}
	if t.lost = err; err == nil {
		t.share = taken
	}
	if t.share == 0 {
		t.closed = time.Now().Add(pause)
	}
	return err
}
