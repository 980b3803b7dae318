package hsm

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A session is a place in a pool for one PKCS #11 session. Whoever took it from
// the pool is the only one who uses it, under the module's drain lock; only the
// holder of that lock for writing may touch the sessions of others.
type session struct {
	handle uint
	epoch  uint64 // 0: not open
}

// A pool bounds the sessions that operations use at a time. The one given back
// last is taken first: so few are opened where few are needed, and they stay in
// the processor's cache.
type pool struct {
	places chan struct{} // one for each session that is free
	mu     sync.Mutex
	free   []*session
	all    []*session
	// anchor sessions make objects, which die with them: such a session is
	// kept after a failure. That is safe, since what runs on it are calls that
	// leave no operation active.
	anchor bool
}

func newPool(n int, anchor bool) *pool {
	p := &pool{places: make(chan struct{}, n), anchor: anchor}
	for range n {
		own := &session{}
		p.all = append(p.all, own)
		p.put(own)
	}
	return p
}

func (p *pool) put(own *session) {
	p.mu.Lock()
	p.free = append(p.free, own)
	p.mu.Unlock()
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
	timer := time.NewTimer(s.wait)
	defer timer.Stop()
	select {
	case <-p.places:
		return p.pop(), nil
	case <-s.done:
		return nil, errClosed
	case <-timer.C:
		return nil, fmt.Errorf("hsm: all %d PKCS #11 sessions are in use for %v: %w", len(p.all), s.wait, keystore.ErrBusy)
	}
}

// on runs op on a session of the pool. It answers codeStale, without running
// op, where the sessions were renewed since the epoch that the caller's handles
// are of: a token may have given such a handle to another object meanwhile.
// Epoch 0 asks for no particular one.
func (s *Store) on(p *pool, epoch uint64, op func(session uint) error) error {
	var deadline time.Time
	for {
		err := s.once(p, epoch, op)
		if err == nil || classOf(err) != classBusy {
			return err
		}
		// Other programs hold the sessions that this pool was promised.
		switch now := time.Now(); {
		case deadline.IsZero():
			deadline = now.Add(s.wait)
		case now.After(deadline):
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *Store) once(p *pool, epoch uint64, op func(session uint) error) error {
	own, err := s.take(p)
	if err != nil {
		return err
	}
	defer p.put(own)
	s.mod.drain.RLock()
	defer s.mod.drain.RUnlock()
	now := s.epoch.Load()
	switch {
	case s.closed:
		return errClosed
	case !s.ready || s.generation != s.mod.generation || epoch != 0 && epoch != now:
		return &Error{Code: codeStale, epoch: now}
	}
	if own.epoch != now {
		if err := s.fill(own, now); err != nil {
			return at(err, now)
		}
	}
	if err = op(own.handle); err == nil {
		return nil
	}
	if !p.anchor {
		// An operation may still be active in it, so nobody gets it again.
		s.empty(own)
	}
	return at(err, now)
}

// fill opens the session of a place in a pool.
func (s *Store) fill(own *session, epoch uint64) (err error) {
	if own.handle, err = s.openSession(s.slot); err == nil {
		own.epoch = epoch
		s.open.Add(1)
	}
	return err
}

// empty closes the session of a place in a pool.
func (s *Store) empty(own *session) {
	if own.epoch == 0 {
		return
	}
	if s.generation == s.mod.generation {
		_ = s.closeSession(own.handle) // it may be gone already
	}
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

// start opens the anchor sessions and logs in: a new epoch. The caller holds
// drain for writing.
func (s *Store) start() error {
	s.ready = false
	if err := s.choose(); err != nil {
		return err
	}
	epoch := s.epoch.Add(1)
	s.generation = s.mod.generation
	s.objects.Store(0)
	for i, own := range s.anchors.all {
		err := s.fill(own, epoch)
		if err == nil && i == 0 {
			err = s.logIn(own.handle)
		}
		if err != nil {
			s.stop()
			return err
		}
	}
	s.ready = true
	return nil
}

// stop closes every session of this store, with the objects they made. The
// caller holds drain for writing.
func (s *Store) stop() {
	for _, p := range []*pool{s.sessions, s.anchors} {
		for _, own := range p.all {
			s.empty(own)
		}
	}
	s.ready = false
	s.objects.Store(0)
}

// logIn logs in, which is for all sessions of the process. A PIN that was
// refused once is never given again: a token counts, and locks itself.
func (s *Store) logIn(session uint) error {
	if s.token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	if s.refused != nil {
		return s.refused
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
	s.refused = fmt.Errorf("%w; %s", err, s.triesLeft())
	return s.refused
}

// triesLeft says what the token tells after a wrong PIN.
func (s *Store) triesLeft() string {
	info, err := s.mod.miekg.GetTokenInfo(s.slot)
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
