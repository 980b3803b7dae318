package cli

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestProgress wants nothing in the first two seconds, one line then, and nothing at the end.
func TestProgress(t *testing.T) {
	var screen bytes.Buffer
	now := time.Now()
	g := &progressLine{screen: &screen, now: func() time.Time { return now }, began: now}
	for i := range 20 {
		g.tell("copied %d records", i)
		now = now.Add(100 * time.Millisecond)
	}
	if g.clear(); screen.Len() > 0 {
		t.Errorf("too early: %q", &screen)
	}
	for i := range 10 {
		g.tell("copied %d records", i)
		now = now.Add(100 * time.Millisecond)
	}
	want := ""
	for _, n := range []string{"0", "2", "4", "6", "8"} {
		want += clearLine + "copied " + n + " records …"
	}
	if got := screen.String(); got != want || strings.Contains(got, "\n") {
		t.Errorf("%q, want %q", got, want)
	}
	screen.Reset()
	g.clear()
	if g.clear(); screen.String() != clearLine {
		t.Errorf("at the end: %q", &screen)
	}
}

// TestSlow wants one line, after ten seconds, where there is no terminal.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for took, want := range map[time.Duration]string{9 * time.Second: "", time.Minute: "msl-hsm: waiting\n"} {
			var out bytes.Buffer
			done := slowOn(&out)("waiting")
			time.Sleep(took)
			if done(); out.String() != want {
				t.Errorf("after %v: %q, want %q", took, &out, want)
			}
		}
	})
}

// TestNoProgress wants nothing where there is no terminal.
func TestNoProgress(t *testing.T) {
	var out bytes.Buffer
	g := newProgress(&out)
	g.began = g.began.Add(-time.Hour)
	g.tell("copied %d records", 1)
	g.clear()
	var none *progressLine
	none.tell("x")
	none.clear()
	if out.Len() > 0 {
		t.Errorf("%q", &out)
	}
}
