package hsm

import (
	"testing"
)

// newTestPool makes a pool at a module that does more if it is asked to, or not.
func newTestPool(gains bool) *pool { return newPool(4, 16, false, func() bool { return gains }) }

// use takes n sessions at the same time, as callers do that wait, and gives them back. It
// returns how many it got.
func (p *pool) use(n int) (got int) {
	var taken []*session
	for range n {
		own := p.pop()
		if own == nil {
			own = p.grow()
		}
		if own != nil {
			taken = append(taken, own)
		}
	}
	for _, own := range taken {
		p.put(own, true)
	}
	return len(taken)
}

func TestPoolFollowsLoad(t *testing.T) {
	for gains, want := range map[bool]int{true: 16, false: 4} {
		p, last := newTestPool(gains), 4
		for range 40 {
			now := p.use(32)
			if now > last+1 {
				t.Fatalf("from %d sessions to %d at once", last, now)
			}
			last = now
		}
		if last != want || p.busy() != 0 {
			t.Errorf("%d sessions, want %d; %d busy", last, want, p.busy())
		}
	}
}

// The sessions that a load needed go when it is over, and not before.
func TestPoolRests(t *testing.T) {
	p := newTestPool(true)
	for range 40 {
		p.use(16)
	}
	rest := func() int {
		idle := p.surplus()
		p.shelve(idle)
		return len(idle)
	}
	for i, c := range []struct{ load, closed, left int }{{16, 0, 16}, {16, 0, 16}, {12, 4, 12}, {12, 0, 12}, {1, 8, 4}, {0, 0, 4}} {
		p.use(c.load)
		if closed := rest(); closed != c.closed || p.granted() != c.left {
			t.Errorf("after load %d: %d closed, %d left; want %d, %d", i, closed, p.granted(), c.closed, c.left)
		}
	}
	if got := p.use(16); got != 5 {
		t.Errorf("%d sessions for the next load", got)
	}
}

// A token that has no more sessions ends the growth.
func TestPoolDenied(t *testing.T) {
	p := newTestPool(true)
	p.use(4)
	for range 4 {
		p.pop()
	}
	own := p.grow()
	if own == nil {
		t.Fatal("no growth")
	}
	if !p.drop(own) || p.granted() != 4 || p.grow() != nil {
		t.Errorf("%d sessions are left", p.granted())
	}
	if p.drop(p.all[0]) {
		t.Error("a session was dropped that there always is")
	}
}

// A session is handed to a caller that waits, also to one that is about to stop, and is not
// lost where nobody waits any more.
func TestPoolHandsOver(t *testing.T) {
	p := newTestPool(false)
	var taken []*session
	for own := p.pop(); own != nil; own = p.pop() {
		taken = append(taken, own)
	}
	if own := p.popOrWait(); len(taken) != 4 || own != nil {
		t.Fatalf("%d sessions, then %v", len(taken), own)
	}
	p.put(taken[0], true)
	if own := p.pop(); own != nil {
		t.Error("a session went past a caller that waits")
	}
	if own := p.stopWaiting(); own != taken[0] || p.busy() != 4 {
		t.Errorf("%p was handed over, want %p; %d busy", own, taken[0], p.busy())
	}
	if p.popOrWait() != nil || p.stopWaiting() != nil {
		t.Error("a session that nobody gave back")
	}
	for i, own := range taken {
		p.put(own, i > 0)
	}
	for i := range taken {
		if own, want := p.pop(), taken[3-i]; own != want {
			t.Errorf("session %d: %p, want %p", i, own, want)
		}
	}
}

func TestLimits(t *testing.T) {
	const unknown = ^uint(0)
	for _, c := range []struct {
		wanted           int
		most, mostRW     uint
		working, anchors int
	}{
		{0, 0, 0, 128, 16}, {0, unknown, unknown - 1, 128, 16}, {4, 0, 0, 4, 2}, {32, 0, 0, 32, 4}, {1, 0, 0, 1, 2},
		{0, 64, 0, 56, 8}, {0, 0, 16, 14, 2}, {0, 1024, 10, 8, 2}, {0, 4, 4, 2, 2}, {0, 3, 3, 2, 1}, {0, 2, 2, 1, 1}, {0, 1, 1, 1, 0}, {8, 0, 1, 1, 0},
	} {
		working, anchors := limits(c.wanted, tokenInfo{MaxSessions: c.most, MaxRwSessions: c.mostRW})
		if working != c.working || anchors != c.anchors {
			t.Errorf("%+v: %d and %d", c, working, anchors)
		}
	}
}
