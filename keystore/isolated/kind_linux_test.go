package isolated

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestSettles has a goroutine stay on the processor of its lane.
func TestSettles(t *testing.T) {
	of := hereKind()
	if of < 0 {
		t.Fatal("the processor of this thread is not told")
	}
	only, now := make(chan unix.CPUSet), make(chan kind)
	go func() {
		toldKind(of.appendTo(nil)).settle()
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			t.Error(err)
		}
		only <- set
		now <- hereKind()
	}()
	if set := <-only; set.Count() != 1 || !set.IsSet(int(of)) {
		t.Errorf("it may run on %d processors, want number %d alone", set.Count(), of)
	}
	if got := <-now; got != of {
		t.Errorf("it runs on processor %d, want %d", got, of)
	}
	for _, none := range []kind{blocking, polled} {
		if got := toldKind(none.appendTo(nil)); got != blocking {
			t.Errorf("lanes of no processor are told as %d", got)
		}
	}
}

// TestMostLanes has more processors than lanes: no more of those are made.
func TestMostLanes(t *testing.T) {
	p := &process{lanes: map[*lane]bool{}, free: map[kind][]*lane{}}
	usual := new(lane)
	p.free[blocking] = []*lane{usual}
	for range maxLanes {
		p.lanes[new(lane)] = true
	}
	if l, err := p.lane(7); l != usual || err != nil {
		t.Errorf("a call takes another lane: %v", err)
	}
}
