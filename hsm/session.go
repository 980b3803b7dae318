package hsm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A life is the time from one opening of the token to the next. Handles of one
// life mean nothing in another.
type life struct {
	epoch      uint64 // grows from life to life
	slot       uint
	token      tokenInfo
	generation uint64 // of the module

	objects atomic.Int64 // session objects that are alive
}

// A session is a place in a pool for one PKCS #11 session. Whoever took it from
// the pool is the only one who uses it, and the only one who closes it.
type session struct {
	handle     uint
	epoch      uint64 // 0: not open
	generation uint64 // of the module that opened it

	origin *origin       // of what it makes
	since  atomic.Int64  // the tick of the watch at which the call under way began, or 0
	shown  atomic.Uint64 // the handle, for the watch
}

// A pool bounds the sessions that operations use at a time. The one given back
// last is taken first: so few are opened where few are needed, and they stay in
// the processor's cache. One that failed is taken last.
type pool struct {
	places chan struct{} // one for each session that is free
	mu     sync.Mutex
	free   []*session
	all    []*session
	// anchor sessions make objects, which die with them: such a session is
	// kept after a failure. That is safe, since what runs on it are calls that
	// leave no operation active.
	anchor bool
	dry    atomic.Pointer[time.Time] // since when somebody waits for a session, or nil
}

func newPool(n int, anchor bool) *pool {
	p := &pool{places: make(chan struct{}, n), anchor: anchor}
	for range n {
		own := &session{}
		p.all = append(p.all, own)
		p.put(own, true)
	}
	return p
}

func (p *pool) put(own *session, sound bool) {
	p.mu.Lock()
	p.free = append(p.free, own)
	if !sound {
		copy(p.free[1:], p.free)
		p.free[0] = own
	}
	p.mu.Unlock()
	if p.dry.Load() != nil {
		p.dry.Store(nil)
	}
	p.places <- struct{}{}
}

// pop returns a session to the caller, who took a place.
func (p *pool) pop() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	own := p.free[last]
	p.free = p.free[:last]
	return own
}

// busy counts the sessions that operations hold.
func (p *pool) busy() int { return cap(p.places) - len(p.places) }

// take waits for a session, but not for ever.
func (s *Store) take(p *pool) (*session, error) {
	select {
	case <-p.places:
		return p.pop(), nil
	default:
	}
	start := time.Now()
	p.dry.CompareAndSwap(nil, &start)
	for {
		end := patience(start, p.dry.Load(), s.wait)
		timer := time.NewTimer(time.Until(end))
		select {
		case <-p.places:
			timer.Stop()
			return p.pop(), nil
		case <-s.done:
			timer.Stop()
			return nil, errClosed
		case <-timer.C:
			if !patience(start, p.dry.Load(), s.wait).After(end) {
				return nil, fmt.Errorf("hsm: all %d PKCS #11 sessions have been in use for %v: %w", len(p.all), s.wait, keystore.ErrBusy)
			}
		}
	}
}

// on runs op on a session of the pool, and tells it the epoch. It answers
// errStale, without running op, where the sessions were renewed since the epoch
// that the caller's handles are of: a token may have given such a handle to
// another object meanwhile. Epoch 0 asks for no particular one.
func (s *Store) on(p *pool, epoch uint64, op func(session uint, epoch uint64) error) error {
	var start time.Time
	for {
		err := s.once(p, epoch, op)
		if err == nil || classOf(err) != classBusy {
			if s.crowded.Load() != nil {
				s.crowded.Store(nil)
			}
			return err
		}
		now := time.Now()
		if start.IsZero() {
			start = now
			s.crowded.CompareAndSwap(nil, &now)
		}
		if now.After(patience(start, s.crowded.Load(), s.wait)) {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *Store) once(p *pool, epoch uint64, op func(session uint, epoch uint64) error) (err error) {
	if stuck := s.stuck.Load(); stuck != nil {
		return stuck.err()
	}
	own, err := s.take(p)
	if err != nil {
		return err
	}
	defer func() { p.put(own, err == nil) }()
	if !s.mod.gate.enter(s.wait) {
		return fmt.Errorf("hsm: the PKCS #11 module has been restarting for %v: %w", s.wait, keystore.ErrBusy)
	}
	defer s.mod.gate.leave()
	now := s.life.Load()
	switch {
	case s.isClosed():
		return errClosed
	case now == nil || now.generation != s.mod.generation.Load():
		return &Error{stale: true}
	case epoch != 0 && epoch != now.epoch:
		return &Error{stale: true, epoch: epoch}
	}
	own.since.Store(s.ticks.Load())
	defer own.since.Store(0)
	if own.epoch != now.epoch || own.origin.isRetired() {
		if err := s.fill(own, now); err != nil {
			return at(err, now.epoch)
		}
	}
	if err = op(own.handle, now.epoch); err == nil {
		return nil
	}
	if !p.anchor {
		// An operation may still be active in it, so nobody gets it again.
		s.empty(own)
	}
	return at(err, now.epoch)
}

// fill opens the session of a place in a pool, and closes the one it had.
func (s *Store) fill(own *session, now *life) (err error) {
	s.empty(own)
	if own.handle, err = s.openSession(now.slot); err != nil {
		s.abandon(own.handle)
		return err
	}
	own.epoch, own.generation = now.epoch, now.generation
	own.origin = &origin{session: openSession{own.handle, own.generation}}
	s.origins.Store(own.handle, own.origin)
	own.shown.Store(uint64(own.handle))
	s.open.Add(1)
	return nil
}

// abandon closes the session that C_OpenSession told although it failed: it may be
// open all the same. One that this store knows is none.
func (s *Store) abandon(handle uint) {
	if handle != 0 && !s.knows(handle) {
		_ = s.closeSession(handle)
	}
}

// knows reports whether a handle is that of a session in one of the pools.
func (s *Store) knows(handle uint) bool {
	for _, p := range []*pool{s.sessions, s.anchors} {
		for _, own := range p.all {
			if own.shown.Load() == uint64(handle) {
				return true
			}
		}
	}
	return false
}

// empty closes the session of a place in a pool.
func (s *Store) empty(own *session) {
	if own.epoch == 0 {
		return
	}
	switch {
	case own.origin.isRetired() && !s.isClosed():
		s.detach(own.origin)
	case own.generation == s.mod.generation.Load():
		err := s.closeSession(own.handle)
		if err != nil && classOf(err) != classSession {
			err = s.closeSession(own.handle) // once more: what is left open is missed by others
		}
		if err != nil && classOf(err) != classSession {
			s.closeLater(openSession{own.handle, own.generation})
		}
	}
	s.origins.CompareAndDelete(own.handle, own.origin)
	own.shown.Store(0)
	own.epoch = 0
	s.open.Add(-1)
}

// at notes the epoch in a module's answer.
func at(err error, epoch uint64) error {
	var e *Error
	if errors.As(err, &e) {
		e.epoch = epoch
	}
	return err
}

// start begins a new life: it finds the token, opens an anchor session and logs
// in. The other sessions follow when they are needed, so that one whose call
// never returns holds up nobody.
func (s *Store) start() error {
	s.life.Store(nil)
	token, err := s.choose()
	if err != nil {
		return err
	}
	return s.startIn(token)
}

// startIn is start in a token that was just found.
func (s *Store) startIn(token tokenInfo) error {
	now := &life{epoch: s.epoch.Add(1), slot: token.slot, token: token, generation: s.mod.generation.Load()}
	if first := s.serial.Load(); first != nil && *first != token.Serial {
		return fmt.Errorf("hsm: the PKCS #11 token %q has the serial number %s, and had %s: %w: another token has taken its place", token.Label, token.Serial, *first, keystore.ErrUnavailable)
	}
	own, err := s.take(s.anchors)
	if err != nil {
		return err
	}
	defer s.anchors.put(own, true)
	if err := s.fill(own, now); err != nil {
		return err
	}
	if err := s.logIn(own.handle, token); err != nil {
		s.empty(own)
		return err
	}
	s.sweepOut(s.anchors, func(*session) bool { return true })
	for _, left := range s.graves.forget() {
		s.closeLater(left)
	}
	s.serial.CompareAndSwap(nil, &token.Serial)
	s.life.Store(now)
	return nil
}

// sweepOut closes such sessions as nobody uses now, with the objects they made.
func (s *Store) sweepOut(p *pool, such func(*session) bool) {
	for range p.all {
		select {
		case <-p.places:
			own := p.pop()
			if such(own) {
				s.empty(own)
			}
			defer p.put(own, true)
		default:
			return
		}
	}
}

// logIn logs in, which is for all sessions of the process. A PIN that was
// refused once is never given again: a token counts, and locks itself.
func (s *Store) logIn(session uint, token tokenInfo) error {
	if token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	if refused := s.refused.Load(); refused != nil {
		return *refused
	}
	err := s.login(session, pkcs11.CKU_USER, s.pin.bytes())
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.Code == pkcs11.CKR_USER_ALREADY_LOGGED_IN:
		return nil // by another store of this process; the PIN is not looked at
	case classOf(err) != classPIN:
		return err
	}
	notSet := e.Code == pkcs11.CKR_USER_PIN_NOT_INITIALIZED // so none was counted
	err = fmt.Errorf("%w; %s", err, s.triesLeft(token.slot))
	if !notSet {
		s.refused.Store(&err)
	}
	return err
}

// triesLeft says what the token tells after a wrong PIN.
func (s *Store) triesLeft(slot uint) string {
	info, err := s.tokenInfo(slot)
	switch {
	case err != nil:
		return "check the PIN before you try again"
	case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return "the PIN is LOCKED: the token's security officer has to set a new one"
	case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return "ONE try is left before the token locks the PIN"
	case info.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
		return "it was not tried again: the token counts wrong PINs and may lock"
	}
	return "it was not tried again: check the PIN"
}
