package msl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// steps runs steps of that length for as long, and returns how many there were.
func (a *admission) steps(ctx context.Context, owner string, rank int, length time.Duration) (n int) {
	for ctx.Err() == nil {
		leave, err := a.take(ctx, owner, rank)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		time.Sleep(length)
		leave()
		n++
	}
	return n
}

// TestAdmissionShare has messages of established sessions under way all the time, and
// others that ask for more than is left.
func TestAdmissionShare(t *testing.T) {
	for name, c := range map[string]struct {
		room, established int
		least, most       int // steps of 10 ms in 10 s
	}{
		"nobody":               {2, 0, 8 * 1000, 8*1000 + 8},
		"one of two":           {2, 1, 900, 1100},
		"as many as room":      {2, 2, 450, 560},
		"more than room":       {2, 8, 1900, 2100},
		"a device with little": {64, 4, 8 * 950, 8*1000 + 8},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAdmission(func() int { return c.room })
				for range c.established {
					defer a.begin()()
				}
				time.Sleep(2 * time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				done := make(chan int)
				for n := range 8 {
					go func() { done <- a.steps(ctx, fmt.Sprint(n), rankStranger, 10*time.Millisecond) }()
				}
				sum := 0
				for range 8 {
					sum += <-done
				}
				if sum < c.least || sum > c.most {
					t.Errorf("%d steps of 10 ms in 10 s, want %d to %d", sum, c.least, c.most)
				}
			})
		})
	}
}

// TestAdmissionFair has sources that flood, and another that asks once.
func TestAdmissionFair(t *testing.T) {
	numbers := []int{1, 2, 4, 8}
	if RaceDetector {
		numbers = numbers[:2] // more of them meet in the same places
	}
	for _, sources := range numbers {
		t.Run(fmt.Sprint(sources), func(t *testing.T) { testFlood(t, sources) })
	}
}

func testFlood(t *testing.T, sources int) {
	patience := time.Duration(1+2*sources) * 50 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(func() int { return 1 })
		defer a.begin()()
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		defer flood.Wait()
		defer cancel()
		for n := range sources * (maxOfOwner + 1) {
			source := fmt.Sprint("flood ", n%sources)
			flood.Go(func() { a.steps(ctx, source, rankStranger, 10*time.Millisecond) })
		}
		time.Sleep(time.Second)
		start := time.Now()
		leave, err := a.take(t.Context(), "other", rankStranger)
		if took := time.Since(start); err != nil || took > patience {
			t.Fatalf("another source: %v after %v", err, took)
		}
		leave()
		start = time.Now()
		if leave, err = a.take(t.Context(), "flood 0", rankProven); err != nil || time.Since(start) > 100*time.Millisecond {
			t.Fatalf("a proven sender: %v after %v", err, time.Since(start))
		}
		leave()
	})
}

// TestAdmissionFull wants an error at once where too many wait, and in time where it takes
// too long.
func TestAdmissionFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(func() int { return 1 })
		end := a.begin()
		time.Sleep(2 * time.Second)
		leave, err := a.take(t.Context(), "slow", rankStranger)
		if err != nil {
			t.Fatal(err)
		}
		results := make(chan error, maxApplicants)
		for n := range maxApplicants {
			go func() {
				leave, err := a.take(t.Context(), fmt.Sprint(n), rankStranger)
				if err == nil {
					leave()
				}
				results <- err
			}()
		}
		synctest.Wait()
		start := time.Now()
		if _, err := a.take(t.Context(), "one more", rankStranger); !errors.Is(err, keystore.ErrBusy) || time.Since(start) > 0 {
			t.Errorf("one more: %v after %v", err, time.Since(start))
		}
		for range maxApplicants {
			if err := <-results; !errors.Is(err, keystore.ErrBusy) {
				t.Errorf("a long wait: %v", err)
			}
		}
		if took := time.Since(start); took != admissionWait {
			t.Errorf("they waited %v", took)
		}
		leave()
		end()
		time.Sleep(2 * time.Second)
		if a.running != 0 {
			t.Errorf("%d steps run", a.running)
		}
	})
}

// TestAdmissionStalled has a step that does not end, while the sessions for which the others
// waited do.
func TestAdmissionStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(func() int { return 1 })
		end := a.begin()
		time.Sleep(2 * time.Second)
		leaveSlow, err := a.take(t.Context(), "slow", rankStranger)
		if err != nil {
			t.Fatal(err)
		}
		end()
		start := time.Now()
		leave, err := a.take(t.Context(), "other", rankStranger)
		if took := time.Since(start); err != nil || took > 2*time.Second {
			t.Fatalf("another source: %v after %v", err, took)
		}
		leave()
		leaveSlow()
		time.Sleep(time.Second)
		if a.running != 0 {
			t.Errorf("%d steps run", a.running)
		}
	})
}

// TestAdmissionOfTokens has tokens in a header, which the device verifies, wait for their turn.
func TestAdmissionOfTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(func() int { return 1 })
		defer a.begin()()
		time.Sleep(2 * time.Second)
		leave, err := a.take(t.Context(), "slow", rankStranger)
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		for member, waits := range map[string]bool{"x": false, "useridtoken": true, "servicetokens": true, "peerservicetokens": true} {
			inside, err := wire.Parse(fmt.Appendf(nil, `{"messageid":1,"renewable":false,%q:[]}`, member), wire.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = new(receiver).readInside(t.Context(), &incoming{admission: a}, inside)
			if errors.Is(err, errAdmission) != waits {
				t.Errorf("%s: %v", member, err)
			}
		}
	})
}

// TestAdmissionCancelled gives up while it waits.
func TestAdmissionCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(func() int { return 1 })
		defer a.begin()()
		time.Sleep(2 * time.Second)
		leave, err := a.take(t.Context(), "one", rankProven)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.take(ctx, "two", rankProven); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a wait that ends: %v", err)
		}
		leave()
		if leave, err = a.take(t.Context(), "three", rankProven); err != nil {
			t.Fatal(err)
		}
		leave()
	})
}
