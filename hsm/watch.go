package hsm

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A stuckCall is one that has not returned in time.
type stuckCall struct {
	function string
	since    time.Time
}

func (c *stuckCall) err() error {
	return fmt.Errorf("hsm: %s has not returned for %v: %w", c.function, time.Since(c.since).Round(100*time.Millisecond), keystore.ErrUnavailable)
}

// A watch looks for calls into a module that do not return. While there is one the store is
// unavailable: each further call would block a thread.
type watch struct {
	keeper session                   // stands for the recovery
	ticks  atomic.Int64              // from 1
	stuck  atomic.Pointer[stuckCall] // that makes the store unavailable
}

// begin says that a call begins on a session. Calls record their start in ticks, because
// reading the clock is comparatively expensive.
func (w *watch) begin(own *session) { own.since.Store(w.ticks.Load()) }

// run looks for calls into the module on any of the sessions that do not return within limit, until
// done is closed.
func (w *watch) run(module functions, limit time.Duration, sessions []*session, done <-chan struct{}, log *slog.Logger) {
	sessions = append([]*session{&w.keeper}, sessions...)
	interval := min(max(limit/8, 5*time.Millisecond), time.Second)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	lost := outage.Outage{Trust: outage.Device}
	defer lost.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		now := w.ticks.Add(1)
		stuck, told := findStuck(module, sessions, now, interval, limit), w.stuck.Load()
		switch {
		case stuck != nil && told == nil:
			lost.Failed(stuck.err(), func() {
				log.Error("device lost: a call into the PKCS #11 module does not return", "function", stuck.function, "since", stuck.since, "call_timeout", limit)
			})
		case stuck == nil && told != nil:
			lost.Worked(time.Now(), func() { log.Info("device back: the call has returned", "function", told.function) })
		}
		if stuck != nil && told != nil && stuck.function == told.function {
			stuck.since = told.since
		}
		w.stuck.Store(stuck)
	}
}

// A sight is what the watch saw of a session: an operation may have many calls, each of which may
// take up to the limit.
type sight struct {
	number   uint64 // of the call that was under way, or the last one
	function string
	at       int64 // the tick at which it was seen first
}

// look notes whether a session is at another call than before. In the place of one whose call does not
// return another session may be noted since: then the call began with the operation, as far as is known.
func (s *sight) look(module functions, session uint, since, now int64) {
	function, number, known := module.lastCall(session)
	switch {
	case known && number != s.number:
		*s = sight{number, function, now}
	case !known && s.at < since:
		*s = sight{function: function, at: since}
	}
}

// findStuck returns the call that has been under way longest, if for longer than
// limit.
func findStuck(module functions, sessions []*session, now int64, tick, limit time.Duration) (stuck *stuckCall) {
	longest := time.Duration(0)
	for _, own := range sessions {
		since := own.since.Load()
		if since == 0 {
			continue
		}
		own.seen.look(module, uint(own.shown.Load()), since, now)
		took := time.Duration(now-max(since, own.seen.at)) * tick
		if took < limitOf(own.seen.function, limit) || took <= longest {
			continue
		}
		longest, stuck = took, &stuckCall{own.seen.function, time.Now().Add(-took)}
	}
	return stuck
}

// limitOf is the limit for a function: finding primes takes some devices minutes.
func limitOf(function string, limit time.Duration) time.Duration {
	if function == "C_GenerateKeyPair" {
		return 12 * limit
	}
	return limit
}
