package fleet

import (
	"testing"
	"time"
)

// TestFlood has one source that sends all the time, and others that enroll: these are not refused.
// A source alone may send as many as the limit says.
func TestFlood(t *testing.T) {
	const perSecond, seconds = 75, 20
	for name, others := range map[string]bool{"beside others": true, "alone": false} {
		limit, now := newThrottle(perSecond), time.Now()
		flood, refused := 0, 0
		for n := range seconds * 1000 {
			now = now.Add(time.Millisecond)
			if limit.allow("flood", now) {
				flood++
			}
			if others && n%50 == 0 && !limit.allow(string(rune(n)), now) {
				refused++
			}
		}
		most := seconds * perSecond
		if others {
			most -= seconds * 20
		}
		if refused > 0 || flood < most || flood > most+2*perSecond {
			t.Errorf("%s: %d of others are refused, and the flood had %d of %d", name, refused, flood, most)
		}
	}
}

// TestFloodSources forgets sources after a second.
func TestFloodSources(t *testing.T) {
	limit, now := newThrottle(1), time.Now()
	for n := range 100 {
		limit.allow(string(rune('a'+n)), now)
		now = now.Add(300 * time.Millisecond)
	}
	if len(limit.sent) > 4 {
		t.Errorf("%d sources are remembered", len(limit.sent))
	}
}
