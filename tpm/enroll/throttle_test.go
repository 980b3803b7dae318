package enroll

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
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

// A lostWindow is one whose answer does not come: what was taken there may be taken.
type lostWindow struct{ asked atomic.Int64 }

func (w *lostWindow) Take(ctx context.Context, _ float64, want int) (int, error) {
	w.asked.Add(1)
	select {
	case <-time.After(2 * time.Second):
		return want, errors.New("lost")
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// TestThrottleLost has many messages while the window does not answer: none waits for
// longer than its own context, or than a request that another began and left and one more
// take, and none is let in.
func TestThrottleLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &lostWindow{}
		limit := newThrottle(50, w)
		start := time.Now()
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				ctx, most := t.Context(), 3*time.Second
				if i%2 == 0 {
					ctx, most = soon, time.Second
				}
				if ok, err := limit.allow(ctx); ok || err == nil || time.Since(start) > most {
					t.Errorf("%v, %v after %v", ok, err, time.Since(start))
				}
			})
		}
		all.Wait()
		if n := w.asked.Load(); n > 2 {
			t.Errorf("asked %d times", n)
		}
		if ok, err := limit.allow(t.Context()); ok || err == nil {
			t.Errorf("after an answer that was lost: %v, %v", ok, err)
		}
	})
}
