package hsm

import (
	"testing"
	"time"
)

// TestPauses has recoveries fail: however long a device was away, the next try is not far.
func TestPauses(t *testing.T) {
	var pause time.Duration
	for i, want := range []time.Duration{100, 200, 400, 500, 500} {
		if pause = longer(pause); pause != want*time.Millisecond {
			t.Errorf("failure %d is followed by a pause of %v, want %d ms", i+1, pause, want)
		}
	}
}
