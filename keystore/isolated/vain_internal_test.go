//go:build linux

package isolated

import (
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestFailuresApart ends a child whose device fails for longer than a call may take, but not
// because of failures that are far apart, nor soon if the next child would give the PIN again.
func TestFailuresApart(t *testing.T) {
	p, _ := startedProcess(t)
	p.limit = 10 * time.Second
	unclear := keystore.Unclear(keystore.ErrUnavailable)
	for _, c := range []struct {
		since, last time.Duration
		err         error
		over        bool
	}{
		{time.Hour, time.Hour, keystore.ErrUnavailable, false},
		{p.limit / 2, 0, keystore.ErrUnavailable, false},
		{2 * p.limit, 0, keystore.ErrLost, false},
		{2 * p.limit, 0, unclear, false},
		{2 * p.limit, p.limit, keystore.ErrUnavailable, true},
	} {
		now := time.Now()
		p.failing.Store(&vainTime{now.Add(-c.since), now.Add(-c.last)})
		if p.note(opSum, c.err); p.isOver() != c.over {
			t.Errorf("failing for %v, last before %v, then %v: it is over: %t", c.since, c.last, c.err, p.isOver())
		}
	}
	p.reap()
}

// TestVainRow counts children in a row whose device only failed.
func TestVainRow(t *testing.T) {
	for _, c := range []struct {
		before         int
		worked, inVain bool
		after          int
	}{
		{0, false, true, 1},
		{1, false, true, 2},
		{2, false, false, 2}, // it crashed before it did anything
		{2, true, false, 0},
		{2, true, true, 1},
	} {
		r := vainRow{before: c.before}
		r.worked.Store(c.worked)
		r.ended.Store(c.inVain)
		if n := r.length(); n != c.after {
			t.Errorf("after %d, worked %t, ended in vain %t: %d, want %d", c.before, c.worked, c.inVain, n, c.after)
		}
	}
	p, _ := startedProcess(t)
	p.limit, p.vain.before = 10*time.Second, mostDoubled+9
	p.failing.Store(&vainTime{time.Now().Add(-16 * p.limit), time.Now()})
	if p.note(opSum, keystore.ErrUnavailable); !p.isOver() {
		t.Error("the time in which a device may only fail has no bound")
	}
	p.reap()
}

// TestVainAfterWork has the device of a child fail that had worked there: as without a row, it may only
// fail for as long as a call may take.
func TestVainAfterWork(t *testing.T) {
	p, _ := startedProcess(t)
	p.limit, p.vain.before = 10*time.Second, mostDoubled
	p.note(opSum, nil)
	p.failing.Store(&vainTime{time.Now().Add(-2 * p.limit), time.Now()})
	if p.note(opSum, keystore.ErrUnavailable); !p.isOver() {
		t.Error("the device has longer to fail, although it worked")
	}
	p.end("was tested")
	p.reap()
}
