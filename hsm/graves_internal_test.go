package hsm

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTroubleEnds names objects for a minute after a failure, by a clock that nobody sets.
func TestTroubleEnds(t *testing.T) {
	var g graves
	g.trouble()
	if until := *g.troubled.Load(); until == until.Round(0) {
		t.Error("the end of the trouble is a time of day")
	}
	synctest.Test(t, func(t *testing.T) {
		g := &graves{name: "x"}
		if g.newID() != "" {
			t.Error("an object has a name before any trouble")
		}
		g.trouble()
		time.Sleep(troubleTime)
		if g.newID() == "" {
			t.Error("an object has no name within a minute")
		}
		time.Sleep(time.Second)
		if g.newID() != "" {
			t.Error("an object has a name after a minute")
		}
	})
}
