package msl

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLinger has garbage beside established sessions: together its senders get the share
// of those without a session, and nobody waits where there are no others.
func TestLinger(t *testing.T) {
	for name, c := range map[string]struct {
		room, established int
		least, most       int // pieces of garbage of 10 ms in 10 s, from 20 senders
	}{
		"nobody":        {2, 0, 19_000, 20_020},
		"one of two":    {2, 1, 900, 1200},
		"as many":       {2, 2, 350, 550}, // a fifth of two processors
		"twice as many": {2, 4, 350, 550},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAdmission(func() int { return c.room })
				for range c.established {
					defer a.begin()()
				}
				time.Sleep(2 * time.Second)
				end := time.Now().Add(10 * time.Second)
				done := make(chan int)
				for range 20 {
					go func() {
						n := 0
						for ; time.Now().Before(end); n++ {
							time.Sleep(10 * time.Millisecond)
							a.linger(10 * time.Millisecond)
						}
						done <- n
					}()
				}
				sum := 0
				for range 20 {
					sum += <-done
				}
				if sum < c.least || sum > c.most {
					t.Errorf("%d pieces, want %d to %d", sum, c.least, c.most)
				}
			})
		})
	}
}
