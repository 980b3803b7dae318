package balanced

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/internal/pace"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A state says what a token can be used for.
type state int

const (
	out     state = iota // nothing: it was not proven since it was opened or lost
	doubted              // if there is no other: an operation failed there, and it is examined
	fit                  // all
)

// A place is one token.
type place struct {
	name string
	open func() (keystore.Store, error)

	busy     atomic.Int64 // operations under way
	progress atomic.Int64 // when one of them began alone or ended, in nanoseconds since start
	start    time.Time
	usual    atomic.Int64 // how long a quick operation takes of late, in nanoseconds; initially 0

	wake      chan struct{} // has the token examined
	again     chan struct{} // the same, also where it did not accept its PIN
	examining sync.Mutex    // held while it is
	store     atomic.Pointer[keystore.Store]

	mu  sync.Mutex
	now state
	why error // it is not fit

	lost outage.Outage // as logged
}

func newPlace(t Token) *place {
	return &place{name: t.Name, open: t.Open, start: time.Now(), wake: make(chan struct{}, 1), again: make(chan struct{}, 1), why: errors.New("it is being opened"), lost: outage.Outage{Trust: outage.Device}}
}

// opened returns the store of the token, or nil.
func (p *place) opened() keystore.Store {
	if store := p.store.Load(); store != nil {
		return *store
	}
	return nil
}

func (p *place) look() (state, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, p.why
}

// judge notes what an examination found.
func (p *place) judge(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now, p.why = fit, nil
	if err != nil {
		p.now, p.why = out, err
	}
}

// doubt has the token examined, since an operation failed there.
func (p *place) doubt(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == fit {
		p.now, p.why = doubted, err
		p.poke()
	}
}

// poke wakes who attends to the token.
func (p *place) poke() { tell(p.wake) }

// tell tells whoever waits on a channel, now or next.
func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// refusesPIN reports whether opening the token would give it a PIN that it did not accept.
func (p *place) refusesPIN(why error) bool {
	return p.opened() == nil && (errors.Is(why, keystore.ErrPIN) || errors.Is(why, keystore.ErrUnclear))
}

// stalled is how long a token with operations under way may complete none before others
// are preferred.
const stalled = time.Second

// stalls reports whether operations are under way and none has ended of late.
func (p *place) stalls() bool {
	return p.busy.Load() > 0 && time.Since(p.start)-time.Duration(p.progress.Load()) > stalled
}

const (
	noticed  = 4                // times as long as on the quickest token: less may be chance
	measured = 10 * time.Second // after its last operation a slow token is tried once
)

// took notes how long a quick operation took. One that took very long may be an exception, but
// none takes less than it can. After a rest, what was noted before does not count against the token.
func (p *place) took(d time.Duration, rested bool) {
	now, usual := int64(max(d, 1)), p.usual.Load()
	switch {
	case usual == 0, rested && now < usual:
	case now > usual:
		now = usual + (min(now, 8*usual)-usual)/8
	default:
		now = (usual + now) / 2
	}
	p.usual.Store(now)
}

// tookLonger notes how long an operation took that makes a key, which takes longer than a quick
// one. A slow token may get no other when it is tried.
func (p *place) tookLonger(d time.Duration) {
	if most := int64(max(d, pace.Slow)); most < p.usual.Load() {
		p.usual.Store(most)
	}
}

// rested reports whether the token has done nothing for so long that it is tried.
func (p *place) rested() bool {
	return time.Since(p.start)-time.Duration(p.progress.Load()) > measured
}

// slowness returns how many times as long an operation takes as on the quickest token, or 1 where
// that is not to be heeded.
func (p *place) slowness(quickest time.Duration) int64 {
	own := time.Duration(p.usual.Load())
	if quickest == 0 || own < pace.Slow || own < noticed*quickest || p.rested() {
		return 1
	}
	return int64(own / quickest)
}

func (p *place) begin() {
	if p.busy.Add(1) == 1 {
		p.progress.Store(int64(time.Since(p.start)))
	}
}

func (p *place) end() {
	p.busy.Add(-1)
	p.progress.Store(int64(time.Since(p.start)))
}

type none = struct{}

// bounded runs an operation on a token, and gives it up after the limit; what it makes
// later is closed. A limit below zero means no limit.
func bounded[T any](p *place, limit time.Duration, op func() (T, error)) (T, error) {
	p.begin()
	if limit < 0 {
		defer p.end()
		return op()
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := op()
		p.end() // before the caller goes on, who may choose a token next
		done <- result{v, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-timer.C:
		go func() {
			if late, ok := any((<-done).value).(keystore.Key); ok {
				late.Close()
			}
		}()
		var none T
		return none, fmt.Errorf("%w for %v", errLate, limit)
	}
}

// Pauses between the examinations of a token that is lost.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 250 * time.Millisecond // beside that of the store itself, less than a second
)

// attend examines a token when there is a doubt about it and, while it is lost, again and
// again. It never waits for the examination of another token.
func (s *tokens) attend(p *place) {
	pause, unclear := firstPause, 0 // times that the PIN was given without a clear answer
	for {
		now, why := p.look()
		wake, least := p.wake, pause
		if p.refusesPIN(why) { // an open store has pauses of its own
			wake, unclear = nil, unclear+timesGiven
			least = max(pause, s.pinPause(p, unclear, why))
		}
		var later <-chan time.Time
		if now != fit && least < forever {
			later = time.After(least)
		}
		select {
		case <-s.done:
			return
		case <-wake:
		case <-p.again:
			unclear = 0
		case <-later:
		}
		if s.tell(p, why, s.examine(p, s.most(keystore.RSASign4096))) {
			pause = firstPause
		} else {
			pause = min(2*pause, longestPause)
		}
	}
}

const (
	timesGiven  = 2 // that one opening gives a PIN to which there is no clear answer
	mostUnclear = 8 // many tokens lock a PIN after ten wrong ones
	forever     = time.Duration(math.MaxInt64)
)

// pinPause is the pause before a token is opened that did not accept its PIN, which it was given so
// many times. One that was refused, or to which it never gave a clear answer, it gets by Retry only.
func (s *tokens) pinPause(p *place, unclear int, why error) time.Duration {
	switch {
	case errors.Is(why, keystore.ErrPIN):
		return forever
	case unclear >= mostUnclear:
		s.log.Error("token is not given the PIN again, since it never said whether it is right, and may count: check both, and have the PIN read again", "token", p.name, "error", why)
		return forever
	}
	return keystore.PINPause(unclear)
}

// tell notes what an examination found, logs what is new, and reports whether the token
// is fit. That a lost token has other keys, or refuses the PIN, is new: waiting does not bring it back.
func (s *tokens) tell(p *place, why, err error) bool {
	if s.isClosed() {
		return false
	}
	p.judge(err)
	if err == nil {
		p.lost.Worked(time.Now(), func() { s.log.Info("token back", "token", p.name) })
		return true
	}
	news := slices.ContainsFunc([]error{ErrDifferent, keystore.ErrPIN}, func(lasts error) bool {
		return errors.Is(err, lasts) && !errors.Is(why, lasts)
	})
	p.lost.Failed(err, func() { news = true })
	if news {
		s.log.Error("token lost", "token", p.name, "error", err)
	}
	return false
}

// examine opens a token if it is not open, and proves that its keys are those that are in
// use. An examination that takes longer than the limit goes on, and is the only one.
func (s *tokens) examine(p *place, limit time.Duration) error {
	if !p.examining.TryLock() {
		return errLate
	}
	_, err := bounded(p, limit, func() (none, error) {
		defer p.examining.Unlock()
		return none{}, s.prove(p)
	})
	return err
}

func (s *tokens) prove(p *place) error {
	if p.opened() == nil {
		store, err := p.open()
		if err != nil {
			return err
		}
		if s.isClosed() {
			return errors.Join(errClosed, store.Close())
		}
		p.store.Store(&store)
	}
	err := s.proof.examine(p)
	if err != nil && s.dropDestroyed(p) {
		err = s.proof.examine(p)
	}
	if err != nil {
		return err
	}
	return s.proof.choose(p)
}
