package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Bounds on the work that failures cause.
const (
	firstPause   = 100 * time.Millisecond // after a recovery that failed
	longestPause = 1500 * time.Millisecond
	burst        = 6                // recoveries that work, before the next has to wait longestPause
	quietTime    = 10 * time.Second // without a recovery: the next one begins gently again
	longestTry   = 5                // times that one operation runs
)

// A recovery is what a store knows about getting its device back.
type recovery struct {
	mu      sync.Mutex
	running chan struct{} // of the one under way: closed when it ends
	began   time.Time
	ended   time.Time // when the last one that worked ended
	retry   time.Time // none begins before
	pause   time.Duration
	err     error // of the last one
	budget  *rate.Limiter
	lost    bool // the log knows that the device is lost
}

// attempt runs op until it works, or its failure is established: on another
// session, in a new life of the sessions, and after the module was initialized
// anew, as far as each makes sense. Where the failure may be one of the data,
// check tells: it does the like of op with data known to be good. An op that
// fails again after check worked comes back as sound: the device is not at fault.
func (s *Store) attempt(op, check func() error, keys ...*object) error {
	if stuck := s.stuck.Load(); stuck != nil {
		return stuck.err()
	}
	err := op()
	if err != nil && errors.As(err, new(*Error)) {
		s.trouble()
	}
	for try := 1; err != nil && try < longestTry; try++ {
		switch s.remedy(err, try, check, keys) {
		case giveUp:
			return err
		case again:
			err = op()
		case verdict:
			err = op()
			var e *Error
			if errors.As(err, &e) && e.class() != classStale {
				e.sound = true
				return err
			}
		}
	}
	return err
}

// A remedy is what a failure asks for.
type remedy int

const (
	giveUp  remedy = iota
	again          // run the operation again
	verdict        // again, and what it says then holds
)

func worth(renewed bool) remedy {
	if renewed {
		return again
	}
	return giveUp
}

// remedy does what the failure of a try asks for. The first failure of a session
// or the device asks for another session only: one that is not lost for good must
// cost no key.
func (s *Store) remedy(err error, try int, check func() error, keys []*object) remedy {
	var e *Error
	if !errors.As(err, &e) {
		return giveUp
	}
	switch c := e.class(); {
	case c == classStale:
		return worth(s.renew(e.epoch, false))
	case c == classPIN, c == classBusy:
		return giveUp
	case try == 1:
		return again
	case c == classSession:
		return worth(s.renew(e.epoch, s.recovery.recent()))
	case c == classDevice:
		return worth(s.renew(e.epoch, true))
	case c == classObject:
		return s.findAgain(e, keys)
	}
	if check == nil {
		check = s.check
	}
	if failed := check(); failed != nil {
		return s.renewFor(e, failed)
	}
	return verdict
}

// renewFor begins a new life where a check failed.
func (s *Store) renewFor(e *Error, failed error) remedy {
	switch {
	case errors.Is(failed, keystore.ErrBusy), errors.Is(failed, keystore.ErrClosed):
		return giveUp // nothing is known
	case classOf(failed) == classStale, classOf(failed) == classSession:
		return worth(s.renew(e.epoch, s.recovery.recent()))
	}
	return worth(s.renew(e.epoch, true))
}

// findAgain drops the handles of keys that the token does not know any more.
func (s *Store) findAgain(e *Error, keys []*object) remedy {
	if failed := s.check(); failed != nil {
		return s.renewFor(e, failed)
	}
	found := false
	for _, k := range keys {
		found = k.forget(e.epoch) || found
	}
	return worth(found)
}

// recent reports whether a recovery worked a short time ago, so that a gentle one
// did not help.
func (r *recovery) recent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.ended.IsZero() && time.Since(r.ended) < quietTime
}

// renew begins a new life unless there is one newer than the one that failed, and
// reports whether there is one now. The work is done elsewhere, since a call into
// the module may never return; nobody waits for it longer than Config.Wait.
func (s *Store) renew(failed uint64, restart bool) bool {
	r := &s.recovery
	r.mu.Lock()
	now := time.Now()
	switch {
	case s.isClosed():
		r.mu.Unlock()
		return false
	case s.alive(failed):
		r.mu.Unlock()
		return true
	case r.running == nil && (now.Before(r.retry) || !r.budget.Allow()),
		r.running != nil && now.Sub(r.began) > s.wait: // it hangs
		r.mu.Unlock()
		return false
	case r.running == nil:
		r.running, r.began = make(chan struct{}), now
		go s.recover(restart)
	}
	running, began := r.running, r.began
	r.mu.Unlock()
	timer := time.NewTimer(time.Until(patience(now, &began, s.wait)))
	defer timer.Stop()
	select {
	case <-running:
	case <-s.done:
	case <-timer.C:
	}
	return s.alive(failed)
}

// alive reports whether the sessions live, and not in the epoch that failed.
func (s *Store) alive(failed uint64) bool {
	now := s.life.Load()
	return now != nil && now.epoch != failed && now.generation == s.mod.generation.Load()
}

// recover begins a new life, and notes what came of it.
func (s *Store) recover(restart bool) {
	s.keeper.since.Store(s.ticks.Load())
	err := s.renewNow(restart)
	s.keeper.since.Store(0)

	r := &s.recovery
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.err = err
	if err == nil {
		r.ended, r.pause, r.retry = now, 0, now
	} else {
		r.pause = min(max(2*r.pause, firstPause), longestPause)
		r.retry = now.Add(r.pause)
	}
	s.tell(err)
	close(r.running)
	r.running = nil
}

// tell logs that the device was lost, or is back: once each. The caller holds the
// recovery's lock.
func (s *Store) tell(err error) {
	r := &s.recovery
	switch {
	case err != nil && !r.lost:
		r.lost = true
		s.log.Error("device lost", "error", err)
	case err == nil && r.lost:
		r.lost = false
		s.log.Info("device back")
	}
}

// renewNow opens the sessions anew; where that fails, or the caller knows that it
// would, it initializes the module first, unless another store of this process
// did so already.
func (s *Store) renewNow(restart bool) error {
	now := s.life.Load()
	moved := now != nil && now.generation != s.mod.generation.Load()
	if !restart || moved {
		err := s.guardedStart()
		if err == nil || errors.Is(err, keystore.ErrPIN) || errors.Is(err, keystore.ErrClosed) {
			return err
		}
	}
	s.life.Store(nil)
	if s.isClosed() {
		return errClosed
	}
	if err := s.mod.restart(s.wait); err != nil {
		return err
	}
	return s.guardedStart()
}

// guardedStart is start as a call into the module.
func (s *Store) guardedStart() error {
	if !s.mod.gate.enter(s.wait) {
		return fmt.Errorf("hsm: the PKCS #11 module is in use by a call that does not return: %w", keystore.ErrBusy)
	}
	defer s.mod.gate.leave()
	if s.isClosed() {
		return errClosed
	}
	return s.start()
}

// check asks whether the device does what it must be able to do: so is a failure
// of the device told from one of the data.
func (s *Store) check() error {
	return s.on(s.sessions, 0, func(session uint, _ uint64) error {
		if err := s.checkLogin(session); err != nil {
			return err
		}
		return s.selfTest(session)
	})
}

// checkLogin is an error where the session is not logged in: some modules answer
// anything then.
func (s *Store) checkLogin(session uint) error {
	now := s.life.Load()
	if now == nil || now.token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	in, err := s.loggedIn(session)
	if err == nil && !in {
		err = &Error{Function: "C_GetSessionInfo", Code: pkcs11.CKR_USER_NOT_LOGGED_IN}
	}
	return err
}

// selfTest does each operation on session keys once, with keys that it throws
// away, and looks at the results.
func (s *Store) selfTest(session uint) (err error) {
	var made [4]uint
	defer func() {
		for _, h := range made {
			if h != 0 {
				err = errors.Join(err, s.destroy(session, h))
			}
		}
	}()
	for i, a := range []keystore.Algorithm{keystore.AES128CBC, keystore.HMACSHA256, keystore.SealSession256} {
		if made[i], err = s.throwaway(session, a); err != nil {
			return err
		}
	}
	if err = s.testCipher(session, made[0]); err != nil {
		return err
	}
	var tags [2][32]byte
	if err = s.testTag(session, made[1], tags[0][:]); err != nil {
		return err
	}
	var wrapped [40]byte
	n, err := s.wrap(session, ckmKeyWrap, made[2], made[1], wrapped[:])
	if err = exactly("C_WrapKey", n, len(wrapped), err); err != nil {
		return err
	}
	m, err := s.unwrap(session, ckmKeyWrap, made[2], wrapped[:], s.templates[keystore.HMACSHA256].unseal)
	if made[3] = m.handle; err != nil {
		return err
	}
	if err = s.testTag(session, m.handle, tags[1][:]); err == nil && tags[0] != tags[1] {
		err = errMismatch
	}
	return err
}

var errMismatch = fmt.Errorf("hsm: the device computes another value than before: %w", keystore.ErrUnavailable)

// throwaway makes a session key that may be wrapped, or with a sealing algorithm
// one that wraps and unwraps.
func (s *Store) throwaway(session uint, a keystore.Algorithm) (uint, error) {
	k, err := kindOf(a)
	if err != nil {
		return 0, err
	}
	t := k.secret(false, true).number(pkcs11.CKA_VALUE_LEN, uint(a.Size()))
	m, err := s.generate(session, k.generate, t)
	return m.handle, err
}

// testCipher encrypts a block, and decrypts it.
func (s *Store) testCipher(session, key uint) error {
	var iv, plain, block, back [16]byte
	copy(plain[:], "msl-hsm self-test")
	n, err := s.encrypt(session, key, pkcs11.CKM_AES_CBC, iv[:], plain[:], block[:])
	if err = exactly("C_Encrypt", n, len(block), err); err != nil {
		return err
	}
	n, err = s.decrypt(session, key, pkcs11.CKM_AES_CBC, iv[:], block[:], back[:])
	if err = exactly("C_Decrypt", n, len(back), err); err == nil && !bytes.Equal(back[:], plain[:]) {
		err = errMismatch
	}
	return err
}

func (s *Store) testTag(session, key uint, tag []byte) error {
	n, err := s.sign(session, key, pkcs11.CKM_SHA256_HMAC, []byte("msl-hsm self-test"), tag)
	return exactly("C_Sign", n, len(tag), err)
}

// explain adds to a failure why the device did not come back.
func (s *Store) explain(err error) error {
	if err == nil || !errors.Is(err, keystore.ErrUnavailable) {
		return err
	}
	s.recovery.mu.Lock()
	defer s.recovery.mu.Unlock()
	if s.recovery.err == nil {
		return err
	}
	// Its text only: that there is no token now does not mean that there is no
	// such key.
	return fmt.Errorf("%w; opening the PKCS #11 token again fails: %v", err, s.recovery.err)
}

// badData turns the answer to a peer's data into the one error that a peer may
// learn, if the device is known to be sound.
func (s *Store) badData(what string, err error) error {
	var e *Error
	switch {
	case errors.Is(err, keystore.ErrBadData) || !errors.As(err, &e):
		return err
	case !e.sound:
		return s.explain(err)
	}
	return fmt.Errorf("hsm: %s: %w", what, keystore.ErrBadData)
}

// ours is the failure of an operation whose data and keys are our own: whatever
// the module says, it is the device's.
func (s *Store) ours(err error) error {
	if err == nil || errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrBusy) || errors.Is(err, keystore.ErrClosed) {
		return s.explain(err)
	}
	return s.explain(fmt.Errorf("%w: %w", err, keystore.ErrUnavailable))
}
