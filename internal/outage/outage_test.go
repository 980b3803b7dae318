package outage

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestOutage counts the lines about something that fails as given: the first times that it works
// again are believed, then it must work for a while.
func TestOutage(t *testing.T) {
	const second = time.Second
	for name, c := range map[string]struct {
		trust      int
		good, bad  time.Duration // by turns, with a result each second
		times      int
		lost, back int
	}{
		"once":               {0, second, second, 1, 1, 1},
		"each second time":   {0, second, second, 1000, 2, 2},
		"trusted":            {3, second, second, 1000, 4, 4},
		"far apart":          {0, 2 * time.Minute, second, 20, 20, 20},
		"for half a minute":  {0, 30 * second, 30 * second, 60, 4, 4},
		"for eleven seconds": {0, 11 * second, 5 * second, 300, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o Outage
				o.Trust = c.trust
				lost, back := 0, 0
				for range c.times {
					for range c.bad / second {
						o.Failed(errors.New("full"), func() { lost++ })
						time.Sleep(second)
					}
					for range c.good / second {
						o.Worked(time.Now(), func() { back++ })
						time.Sleep(second)
					}
				}
				time.Sleep(most)
				if _, err := o.Last(); lost != c.lost || back != c.back || err != nil {
					t.Errorf("lost %d times and back %d times, want %d and %d; at the end: %v", lost, back, c.lost, c.back, err)
				}
			})
		})
	}
}

// TestOlder has something succeed that began before the failure: that says nothing.
func TestOlder(t *testing.T) {
	var o Outage
	began := time.Now().Add(-time.Second)
	o.Failed(errors.New("full"), func() {})
	o.Worked(began, func() { t.Error("back") })
	if at, err := o.Last(); err == nil || !at.After(began) {
		t.Errorf("%v at %v", err, at)
	}
}

// TestStop has something work that was closed during an outage, after the call or since before it.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o Outage
		for range 2 {
			o.Failed(errors.New("full"), func() {})
			o.Worked(time.Now(), func() {})
		}
		for range 2 {
			o.Failed(errors.New("full"), func() {})
			o.Worked(time.Now(), func() { t.Error("back after Stop") })
			o.Stop()
			o.Worked(time.Now(), func() { t.Error("back, after Stop") })
			time.Sleep(most)
		}
	})
}
