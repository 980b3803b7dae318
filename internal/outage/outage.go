// Package outage decides when something that works at times, such as a file on a disk that is
// nearly full, counts as working again. A log then has a line for each outage instead of one
// for each change, and a load balancer is not told two things by turns.
package outage

import (
	"sync"
	"time"
)

const (
	// least and most bound how long something must not fail before it counts as working again,
	// if that did not last before.
	least = 10 * time.Second
	most  = time.Minute
	// calm is the least time without an outage after which the next one is the first again.
	calm = time.Minute
	// Device is how often in a row a device is trusted that is back: devices are known to
	// restart, and they are examined before they are used.
	Device = 3
)

// An Outage is what is known about something that may fail. The first times that it works
// again are believed at once. If it fails again soon, it counts as failing until it works and
// has not failed for ten seconds, and for twice as long each further time, up to a minute.
// The zero Outage is ready for use, and works. It is safe for concurrent use.
type Outage struct {
	Trust int // times in a row that the end of an outage is believed at once; zero means 1

	mu     sync.Mutex
	err    error       // of the newest failure of this outage; nil if there is none
	failed time.Time   // when that was
	ended  time.Time   // the outage before
	row    int         // outages of which each began soon after the one before
	end    *time.Timer // of the outage, unless it fails again; or nil
	quit   bool        // after Stop
}

// Failed notes a failure. If an outage begins with it, tell is called.
func (o *Outage) Failed(err error, tell func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	begins := o.err == nil
	o.err, o.failed = err, now
	o.stop()
	if !begins {
		return
	}
	if now.Sub(o.ended) > max(calm, 2*o.hold()) {
		o.row = 0
	}
	o.row++
	tell()
}

// Worked notes a success of something that began then. If an outage ends with it, now or
// later, tell is called.
func (o *Outage) Worked(began time.Time, tell func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.quit || o.err == nil || o.end != nil || began.Before(o.failed) {
		return
	}
	left := time.Until(o.failed.Add(o.hold()))
	if left <= 0 {
		o.over(tell)
		return
	}
	var end *time.Timer
	end = time.AfterFunc(left, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.end == end { // it did not fail since then
			o.over(tell)
		}
	})
	o.end = end
}

// Last returns the newest failure of the outage and when it was, or nil if there is none.
func (o *Outage) Last() (at time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed, o.err
}

// Hold returns how long it must not fail for the outage to end.
func (o *Outage) Hold() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.hold()
}

// Stop is for something that is closed: no outage of it ends anymore.
func (o *Outage) Stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.quit = true
	o.stop()
}

// over ends the outage. The mutex must be held.
func (o *Outage) over(tell func()) {
	o.stop()
	o.err, o.ended = nil, time.Now()
	tell()
}

func (o *Outage) stop() {
	if o.end != nil {
		o.end.Stop()
		o.end = nil
	}
}

func (o *Outage) hold() time.Duration {
	further := o.row - max(o.Trust, 1)
	if further <= 0 {
		return 0
	}
	return min(least<<min(further-1, 10), most)
}
