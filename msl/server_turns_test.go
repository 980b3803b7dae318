package msl

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const checkTime = 100 * time.Millisecond

// flood has n checks of a payer run or wait, and returns how many were refused.
func flood(t *turns, p payer, n int) *atomic.Int32 {
	var refused atomic.Int32
	for range n {
		go func() {
			leave, err := t.take(context.Background(), p)
			if err != nil {
				refused.Add(1)
				return
			}
			time.Sleep(checkTime)
			leave()
		}()
	}
	return &refused
}

// took is how many checks long one waits for a turn.
func took(t *testing.T, in *turns, p payer) int {
	t.Helper()
	began := time.Now()
	leave, err := in.take(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	waited := time.Since(began)
	time.Sleep(checkTime)
	leave()
	return int((waited + checkTime - 1) / checkTime)
}

// TestTurnsAreFair floods the checks from one entity, from several, and from names
// that are not registered.
func TestTurnsAreFair(t *testing.T) {
	honest := payer{"honest", true}
	for _, c := range []struct {
		name   string
		places int
		payers int
		known  bool
		most   int // checks that the honest one may have to wait for
	}{
		{"one entity", 4, 1, true, 0},
		{"one entity, two places", 2, 1, true, 0},
		{"one entity, one place", 1, 1, true, 2},
		{"eight entities", 4, 8, true, 3},
		{"eight entities, one place", 1, 8, true, 9},
		{"a thousand strangers", 4, 1000, false, strangers/4 + 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			turns := newTurns(c.places)
			for i := range c.payers {
				flood(turns, payer{fmt.Sprint("greedy", i), c.known}, max(2, 1500/c.payers))
			}
			synctest.Wait()
			for range 3 {
				if n := took(t, turns, honest); n > c.most {
					t.Errorf("%s: the honest one waits for %d checks", c.name, n)
				}
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if turns.taken != 0 || len(turns.running)+len(turns.waiting)+len(turns.round) != 0 {
				t.Errorf("%s: something is left: %+v", c.name, turns)
			}
		})
	}
}

// TestTurnsAreBounded has one entity wait for more than it may.
func TestTurnsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(4)
		greedy := payer{"greedy", true}
		refused := flood(turns, greedy, 1500)
		synctest.Wait()
		if n := refused.Load(); n != 1500-3-maxWaiting || turns.running["greedy"] != 3 {
			t.Errorf("%d are refused, %d run", n, turns.running["greedy"])
		}
		if _, err := turns.take(context.Background(), greedy); !errors.Is(err, errWaiting) || codeOf(err) != ErrInternalException {
			t.Errorf("one more: %v", err)
		}
		time.Sleep(time.Hour)
	})
}

// TestTurnsGivenUp ends the waiting of all, before and at the moment of their turn.
func TestTurnsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		leave, err := turns.take(context.Background(), payer{"a", true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), checkTime)
		defer cancel()
		for i := range 10 {
			go func() {
				if leave, err := turns.take(ctx, payer{fmt.Sprint(i % 3), true}); err == nil {
					leave()
				} else if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			}()
		}
		time.Sleep(checkTime)
		leave()
		synctest.Wait()
		if turns.taken != 0 || len(turns.running)+len(turns.waiting)+len(turns.round) != 0 {
			t.Errorf("something is left: %+v", turns)
		}
	})
}
