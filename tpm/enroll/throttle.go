package enroll

import (
	"cmp"
	"context"
	"math"
	"time"

	"golang.org/x/time/rate"
)

// A Window limits what several authorities do together.
type Window interface {
	// Take takes up to want from the window: a bucket that fills at perSecond, and holds
	// twice that plus one. It returns how much it took.
	Take(ctx context.Context, perSecond float64, want int) (taken int, err error)
}

// A throttle limits the messages of an authority, or of all authorities that share its
// window.
type throttle struct {
	own       *rate.Limiter
	perSecond float64
	window    Window // or nil

	turn   chan struct{} // holds one element while a message uses the fields below
	share  int           // taken from the window and not yet used
	closed time.Time     // the window is not asked until then
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

// ask takes a tenth of a second's share of the window. If the window is empty or does not
// answer, a flood of messages does not cause a flood of requests, and waiting messages do
// not each wait for a separate answer. Units that a lost answer took are not used.
func (t *throttle) ask(ctx context.Context) error {
	const pause = 100 * time.Millisecond
	want := max(1, int(math.Ceil(t.perSecond*pause.Seconds())))
	taken, err := t.window.Take(ctx, t.perSecond, want)
	if ctx.Err() != nil { // says nothing about the window
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
