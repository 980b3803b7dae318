package proof

import (
	"testing"
	"time"
)

// TestBehind compares what a TPM signed, with counters that have an unknown constant added to them.
func TestBehind(t *testing.T) {
	const minute = uint64(time.Minute / time.Millisecond)
	before := Clock{Clock: 60 * minute, Resets: 10, Restarts: 5, Safe: true}
	for what, tt := range map[string]struct {
		now  Clock
		want bool
	}{
		"the same":                      {before, false},
		"later":                         {Clock{61 * minute, 10, 5, true, 0}, false},
		"overtaken":                     {Clock{51 * minute, 10, 5, true, 0}, false},
		"back within a start":           {Clock{49 * minute, 10, 5, true, 0}, true},
		"back within a start, not safe": {Clock{49 * minute, 10, 5, false, 0}, true},
		"a resume":                      {Clock{60 * minute, 10, 6, true, 0}, false},
		"a resume back":                 {Clock{90 * minute, 10, 4, true, 0}, true},
		"a reset":                       {Clock{61 * minute, 11, 0, true, 0}, false},
		"a reset back":                  {Clock{61 * minute, 9, 9, true, 0}, true},
		"a reset without shutdown":      {Clock{10 * minute, 11, 0, false, 0}, false},
		"a reset, and back":             {Clock{10 * minute, 11, 0, true, 0}, true},
		"a resume, without shutdown":    {Clock{10 * minute, 10, 6, false, 0}, false},
		"a resume, and back":            {Clock{10 * minute, 10, 6, true, 0}, true},
		"other firmware says nothing":   {Clock{61 * minute, 10, 5, true, 99}, false},
	} {
		for _, constant := range []uint32{0, 1<<32 - 11, 1<<31 - 10, 0xdeadbeef} {
			a, b := tt.now, before
			a.Resets, b.Resets = a.Resets+constant, b.Resets+constant
			a.Restarts, b.Restarts = a.Restarts+constant, b.Restarts+constant
			if got := a.Behind(b, 10*time.Minute); got != tt.want {
				t.Errorf("%s, with %#x: %v", what, constant, got)
			}
		}
	}
	if _, err := ReadClock([]byte("not one")); err == nil {
		t.Error("a clock in what is none")
	}
}
