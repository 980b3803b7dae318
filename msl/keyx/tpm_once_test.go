package keyx

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"
)

// TestOnceWindow fills the memory of what was used: nothing is taken twice, nothing more is
// taken while it is full, and there is room again once the timestamps are refused anyway.
func TestOnceWindow(t *testing.T) {
	var w onceWindow
	what := func(n uint32) (h [sha256.Size]byte) {
		binary.BigEndian.PutUint32(h[:], n)
		return h
	}
	start := time.Unix(1700000000, 0)
	for n := range uint32(maxOnce) {
		if !w.first(what(n), start, time.Minute) {
			t.Fatalf("%d is refused", n)
		}
	}
	for _, c := range []struct {
		name  string
		n     uint32
		after time.Duration
		want  bool
	}{
		{"the first again", 0, 0, false},
		{"the last again", maxOnce - 1, 0, false},
		{"one too many", maxOnce, 0, false},
		{"at the end of the window", maxOnce, 2 * time.Minute, false},
		{"after the window", maxOnce, 2*time.Minute + 1, true},
		{"again after the window", maxOnce, 2*time.Minute + 1, false},
		{"an old one", 0, 2*time.Minute + 1, true},
	} {
		if got := w.first(what(c.n), start.Add(c.after), time.Minute); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
