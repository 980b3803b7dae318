//go:build linux

package isolated

import (
	"runtime"
	"testing"
	"time"
)

// TestTurnIsGivenBack waits for an answer with every turn that there is: garbage is collected
// nevertheless, and the answers are read when they come.
func TestTurnIsGivenBack(t *testing.T) {
	held := turns{able: canHold(), born: time.Now()}
	var others []*lane
	got := make(chan error)
	for range runtime.GOMAXPROCS(0) {
		own, theirs := lanes(t)
		t.Cleanup(own.close)
		own.wait, others = held.read, append(others, theirs)
		go func() {
			_, err := own.receive(maxMessage)
			got <- err
		}()
	}
	for range 3 {
		runtime.GC()
	}
	for _, theirs := range others {
		if err := theirs.send(begin(nil, succeeded)); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Errorf("an answer after a turn was given back: %v", err)
		}
	}
}

// TestTurnsInVain has turns kept in vain: no more are kept for a while, and then until that was
// in vain again.
func TestTurnsInVain(t *testing.T) {
	held := turns{able: true, born: time.Now()}
	expect := func(when string, want bool) {
		t.Helper()
		if got := held.mayHold(); got != want {
			t.Errorf("%s a call may keep its turn: %t", when, got)
		}
	}
	expect("at first", true)
	held.until.Store(int64(time.Hour))
	held.vain.Store(mostVain - 1)
	expect("after less than the most in vain", true)
	held.vain.Store(mostVain)
	expect("after the most in vain", false)
	held.until.Store(0)
	expect("after the pause", true)
	own, theirs := lanes(t)
	t.Cleanup(own.close)
	if err := theirs.send(begin(nil, succeeded)); err != nil {
		t.Fatal(err)
	}
	own.wait = held.read
	if _, err := own.receive(maxMessage); err != nil {
		t.Fatal(err)
	}
	held.until.Store(int64(time.Hour))
	expect("after an answer that came at once", true)
}
