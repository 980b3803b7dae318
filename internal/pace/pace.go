// Package pace measures how long the operations of a device take, so that a program can
// distinguish a device that is waited for from one that computes on the same processor.
package pace

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	most   = 4 << 10 // bytes: longer operations say less about the latency of the device
	every  = 16      // on a fast device, one in so many operations is timed: reading the clock has a cost
	window = time.Minute

	// Slow is the operation time from which a device counts as waited for: anything
	// faster is done before another goroutine has started.
	Slow = 100 * time.Microsecond
)

// A Pace is how long operations take in a device. The least is the round trip to the
// device, whatever else it is doing. The zero Pace is ready for use. It is safe for
// concurrent use.
type Pace struct {
	count atomic.Uint32
	least atomic.Int64 // in nanoseconds, of this window and the previous one; initially 0
	usual atomic.Int64 // in nanoseconds, a moving average

	mu           sync.Mutex
	since        time.Time // when the window began
	latest, last time.Duration
}

// Begin returns when an operation on that many bytes started if it is to be timed, or the
// zero time.
func (p *Pace) Begin(size int) time.Time {
	least := p.Least()
	if size > most || p.count.Add(1)%every != 0 && least > 0 && least < Slow {
		return time.Time{}
	}
	return time.Now()
}

// End records an operation that succeeded.
func (p *Pace) End(start time.Time) {
	if start.IsZero() {
		return
	}
	took := max(time.Since(start), 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() || start.Sub(p.since) > window {
		p.since, p.last, p.latest = start, p.latest, took
	}
	p.latest = min(p.latest, took)
	least := p.latest
	if p.last > 0 {
		least = min(least, p.last)
	}
	p.least.Store(int64(least))
	usual := p.usual.Load()
	if usual == 0 {
		usual = int64(took)
	}
	p.usual.Store(usual + (int64(took)-usual)/8)
}

// Forget starts over, since another device may answer from now on.
func (p *Pace) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.latest, p.last = time.Time{}, 0, 0
	p.least.Store(0)
	p.usual.Store(0)
}

// Least returns the shortest time of an operation in the last one or two minutes; 0 if
// none was timed.
func (p *Pace) Least() time.Duration { return time.Duration(p.least.Load()) }

// Computes reports whether the device was fast when it was timed: it computes on the same
// processor instead of being waited for.
func (p *Pace) Computes() bool {
	least := p.Least()
	return least > 0 && least < Slow
}

// Gains reports whether the device is likely to do more if it gets more to do
// concurrently: it is waited for, and takes hardly longer than for one operation by
// itself.
func (p *Pace) Gains() bool {
	least := p.Least()
	return least >= Slow && time.Duration(p.usual.Load()) < 2*least
}
