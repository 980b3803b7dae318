package statuspage

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

const (
	interval   = 10 * time.Second
	mostPoints = 360 // one hour
)

// A History counts what a server does, and keeps the last hour. The zero value is empty.
// It is safe for concurrent use.
type History struct {
	answered, failed atomic.Int64
	message, call    timing
	failures         failures

	mu     sync.Mutex
	points []Point
}

// A timing sums up times since it was last taken.
type timing struct{ number, sum, longest atomic.Int64 }

func (t *timing) add(d time.Duration) {
	t.number.Add(1)
	t.sum.Add(int64(d))
	for old := t.longest.Load(); old < int64(d) && !t.longest.CompareAndSwap(old, int64(d)); {
		old = t.longest.Load()
	}
}

func (t *timing) take() Times {
	n, sum, longest := t.number.Swap(0), t.sum.Swap(0), t.longest.Swap(0)
	if n == 0 {
		return Times{}
	}
	return Times{Number: n, Mean: milliseconds(sum / n), Longest: milliseconds(longest)}
}

func milliseconds(nanoseconds int64) float64 { return float64(nanoseconds) / 1e6 }

// Message counts a message that a server has finished with.
func (h *History) Message(v *msl.Served) {
	h.message.add(v.Took)
	if v.Err == nil && v.Response == 0 {
		h.answered.Add(1)
		return
	}
	h.failed.Add(1)
	h.failures.add(v, time.Now())
}

// Call counts an operation of a key store.
func (h *History) Call(c keystore.Call) {
	if took := c.Queue + c.Run; took > 0 { // else nothing could reach the device
		h.call.add(took)
	}
}

// Run adds a point every ten seconds until ctx ends.
func (h *History) Run(ctx context.Context) {
	every := time.NewTicker(interval)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-every.C:
			h.end(now)
		}
	}
}

// end makes a point of what happened since the previous one.
func (h *History) end(now time.Time) {
	p := Point{At: now.Unix(), Answered: h.answered.Swap(0), Failed: h.failed.Swap(0), Message: h.message.take(), Call: h.call.take()}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.points) == mostPoints {
		h.points = append(h.points[:0], h.points[1:]...)
	}
	h.points = append(h.points, p)
}

// Fill sets the past in an overview.
func (h *History) Fill(o *Overview) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.Interval, o.Past, o.Failures = interval.Seconds(), append([]Point{}, h.points...), h.failures.newest()
}
