package enroll

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A fakeWindow gives what is left, and counts who asks.
type fakeWindow struct {
	left, asked int
	err         error
}

func (w *fakeWindow) Take(_ context.Context, _ float64, want int) (int, error) {
	w.asked++
	n := min(want, w.left)
	w.left -= n
	return n, w.err
}

// TestThrottle asks the window seldom, also when nothing is left.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakeWindow{left: 12}
		limit := newThrottle(50, w)
		allowed := 0
		for range 100 {
			if ok, err := limit.allow(t.Context()); err == nil && ok {
				allowed++
			}
		}
		if allowed != 12 || w.asked != 4 {
			t.Errorf("%d allowed, asked %d times", allowed, w.asked)
		}
		time.Sleep(time.Second)
		w.left = 1
		if ok, err := limit.allow(t.Context()); err != nil || !ok {
			t.Errorf("%v, %v", ok, err)
		}
		w.err = errors.New("lost")
		if ok, err := limit.allow(t.Context()); !errors.Is(err, w.err) || ok {
			t.Errorf("%v, %v", ok, err)
		}
	})
}
