package hsm

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// TestPauses has recoveries fail: however long a device was away, the next try is not far.
// Those that work are spaced.
func TestPauses(t *testing.T) {
	r, now := &recovery{budget: rate.NewLimiter(rate.Every(spacing), burst)}, time.Now()
	for i := range 20 {
		r.note(now, errors.New("still away"))
		if want := min(firstPause<<min(i, 10), longestPause); r.pause != want || r.due(now.Add(want-1)) || !r.due(now.Add(want)) {
			t.Errorf("failure %d is followed by a pause of %v, want %v", i+1, r.pause, want)
		}
		now = now.Add(r.pause)
	}
	for range burst {
		if !r.due(now) {
			t.Error("a recovery is not due, although few worked")
		}
		r.note(now, nil)
	}
	if r.due(now) || !r.due(now.Add(spacing)) {
		t.Error("many recoveries that worked are not spaced")
	}
}
