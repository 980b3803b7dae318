package pace

import (
	"testing"
	"testing/synctest"
	"time"
)

// do runs operations that take as long as given, one after the other.
func (p *Pace) do(times int, took time.Duration) {
	for range times {
		start := p.Begin(100)
		time.Sleep(took)
		p.End(start)
	}
}

func TestPace(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(p *Pace)
		least time.Duration
		gains bool
	}{
		"nothing":      {func(*Pace) {}, 0, false},
		"one":          {func(p *Pace) { p.do(1, time.Millisecond) }, time.Millisecond, true},
		"fast":         {func(p *Pace) { p.do(100, 20*time.Microsecond) }, 20 * time.Microsecond, false},
		"hesitates":    {func(p *Pace) { p.do(100, 20*time.Microsecond); p.do(100, time.Millisecond) }, 20 * time.Microsecond, false},
		"crowded":      {func(p *Pace) { p.do(10, time.Millisecond); p.do(40, 3*time.Millisecond) }, time.Millisecond, false},
		"free again":   {func(p *Pace) { p.do(40, 3*time.Millisecond); p.do(40, time.Millisecond) }, time.Millisecond, true},
		"slow for two": {func(p *Pace) { p.do(100, 20*time.Microsecond); p.do(200, time.Second) }, time.Second, true},
		"forgotten":    {func(p *Pace) { p.do(10, time.Millisecond); p.Forget() }, 0, false},
		"failed":       {func(p *Pace) { p.Begin(1) }, 0, false},
		"long": {func(p *Pace) {
			p.End(p.Begin(most + 1))
		}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p Pace
				c.do(&p)
				if p.Least() != c.least || p.Gains() != c.gains {
					t.Errorf("least %v, gains %v; want %v, %v", p.Least(), p.Gains(), c.least, c.gains)
				}
			})
		})
	}
}

// TestComputes tells a device that computes on the same processor from one that is waited for.
func TestComputes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		expect := func(when string, want bool) {
			t.Helper()
			if p.Computes() != want {
				t.Errorf("%s: computes %t, want %t", when, !want, want)
			}
		}
		expect("before it was timed", false)
		p.do(1, Slow)
		expect("waited for", false)
		p.do(1, Slow-1)
		expect("fast once", true)
		p.Forget()
		expect("forgotten", false)
	})
}
