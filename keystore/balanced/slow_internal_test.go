package balanced

import (
	"log/slog"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/pace"
	"github.com/msl-hsm/msl-hsm/keystore"
)

const usual = pace.Slow / 10 // of a quick operation

// slowPlace is a token that was slow, and did nothing since.
func slowPlace() *place {
	p := newPlace(Token{})
	p.start = time.Now().Add(-2 * measured)
	p.usual.Store(int64(1000 * usual))
	return p
}

// TestSlowOnce tries a token that was slow, and is not any more: it counts as a quick one from then
// on, or almost so if what it is tried with takes longer.
func TestSlowOnce(t *testing.T) {
	p := slowPlace()
	p.took(usual, p.rested())
	p.begin()
	if n := p.slowness(usual); n != 1 {
		t.Errorf("after a quick operation it counts as %d times slower", n)
	}
	p = slowPlace()
	_, err := on(p, -1, nil, func(*place, []keystore.Key) (keystore.Key, error) { return struct{ keystore.Key }{}, nil })
	if n := p.slowness(usual); err != nil || n > 10 {
		t.Errorf("after a key was made it counts as %d times slower: %v", n, err)
	}
	p = slowPlace()
	p.took(1000*usual, p.rested())
	p.begin()
	if n := p.slowness(usual); n < 100 {
		t.Errorf("a slow one counts as %d times slower", n)
	}
}

// TestQuickestKnown has a token back of which nothing is known: another one is still slow.
func TestQuickestKnown(t *testing.T) {
	s := &tokens{places: []*place{newPlace(Token{}), newPlace(Token{}), newPlace(Token{})}}
	for i, p := range s.places {
		p.usual.Store([]int64{int64(usual), int64(1000 * usual), 0}[i])
		p.judge(nil)
	}
	for range 6 {
		if p := s.shortest(fit, nil, nil); p == s.places[1] {
			t.Fatal("the slow token is chosen")
		}
	}
}

// TestPINPauses has a token never say whether its PIN is right: at last it is not given any more.
func TestPINPauses(t *testing.T) {
	s, p := &tokens{log: slog.New(slog.DiscardHandler)}, newPlace(Token{})
	for _, c := range []struct {
		unclear int
		why     error
		forever bool
	}{
		{timesGiven, keystore.ErrUnclear, false},
		{mostUnclear, keystore.ErrUnclear, true},
		{timesGiven, keystore.ErrPIN, true},
	} {
		if !p.refusesPIN(c.why) || (s.pinPause(p, c.unclear, c.why) == forever) != c.forever {
			t.Errorf("after %d times and %v the pause is %v", c.unclear, c.why, s.pinPause(p, c.unclear, c.why))
		}
	}
}
