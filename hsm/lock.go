package hsm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// grace is how long anybody waits for what is overdue.
const grace = 20 * time.Millisecond

// patience ends a wait that began at start for something that others have held since a
// time, if that is known. Held for longer than wait it is overdue, and later callers do not
// wait for it: otherwise the waits of one request would add up.
func patience(start time.Time, since *time.Time, wait time.Duration) time.Time {
	end := start.Add(wait)
	if since == nil {
		return end
	}
	overdue := since.Add(wait)
	if least := start.Add(min(grace, wait)); overdue.Before(least) {
		return least
	}
	if overdue.Before(end) {
		return overdue
	}
	return end
}

// A lock is held through calls into the module, which may not return, so waiting for
// it is limited.
type lock struct {
	mu    sync.Mutex
	since atomic.Pointer[time.Time] // when it was taken
}

func (l *lock) take(wait time.Duration) error {
	start := time.Now()
	for now := start; !l.mu.TryLock(); now = time.Now() {
		if now.After(patience(start, l.since.Load(), wait)) {
			return fmt.Errorf("hsm: a call that has to end first did not return within %v: %w", wait, keystore.ErrBusy)
		}
		time.Sleep(time.Millisecond)
	}
	now := time.Now()
	l.since.Store(&now)
	return nil
}

func (l *lock) free() { l.mu.Unlock() }

// bounded runs op elsewhere, and does not wait longer than that for it.
func bounded(wait time.Duration, op func() error) error {
	done := make(chan error, 1)
	go func() { done <- op() }()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("hsm: a call into the PKCS #11 module does not return: %w", keystore.ErrBusy)
	}
}
