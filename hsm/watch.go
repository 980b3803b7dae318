package hsm

import (
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A stuckCall is one that has not returned in time.
type stuckCall struct {
	function string
	since    time.Time
}

func (c *stuckCall) err() error {
	return fmt.Errorf("hsm: %s has not returned for %v: %w", c.function, time.Since(c.since).Round(time.Second), keystore.ErrUnavailable)
}

// watch looks for calls that do not return within limit, until the store is
// closed. While there is one the store is unavailable: to wait for more of them
// would bind a thread each.
func (s *Store) watch(limit time.Duration) {
	ticker := time.NewTicker(min(max(limit/4, 10*time.Millisecond), time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-ticker.C:
		}
		stuck, told := s.findStuck(limit), s.stuck.Load()
		switch {
		case stuck != nil && told == nil:
			s.log.Error("device lost: a call into the PKCS #11 module does not return", "function", stuck.function, "since", stuck.since, "call_timeout", limit)
		case stuck == nil && told != nil:
			s.log.Info("device back: the call has returned", "function", told.function)
		}
		s.stuck.Store(stuck)
	}
}

// findStuck returns the call that has been under way longest, if for longer than
// limit.
func (s *Store) findStuck(limit time.Duration) (stuck *stuckCall) {
	all := append(append([]*session{&s.keeper}, s.sessions.all...), s.anchors.all...)
	for _, own := range all {
		since := own.since.Load()
		if since == 0 {
			continue
		}
		began, function := time.Unix(0, since), doing(uint(own.shown.Load()))
		if time.Since(began) < patience(function, limit) || stuck != nil && began.After(stuck.since) {
			continue
		}
		stuck = &stuckCall{function, began}
	}
	return stuck
}

// patience is the limit for a function: to find primes takes some devices minutes.
func patience(function string, limit time.Duration) time.Duration {
	if function == "C_GenerateKeyPair" {
		return 12 * limit
	}
	return limit
}
