package hsm

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Bounds on the work that failures cause.
const (
	firstPause   = 100 * time.Millisecond // after a recovery that failed
	longestPause = 30 * time.Second
	checkEvery   = 100 * time.Millisecond // self-test after data that does not open
)

// A recovery is what a store knows about getting its device back.
type recovery struct {
	mu    sync.Mutex
	retry time.Time
	pause time.Duration
	err   error // of the last attempt

	checked time.Time // when the last self-test passed
}

// attempt runs op, and once more where the device came back after a failure.
func (s *Store) attempt(op func() error, keys ...*object) error {
	err := op()
	if err == nil || !s.recovers(err, keys) {
		return err
	}
	return op()
}

// recovers does what the failure asks for, and reports whether it is worth
// trying again.
func (s *Store) recovers(err error, keys []*object) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.class() {
	case classStale, classSession:
		return s.renew(e.epoch, false)
	case classDevice:
		return s.renew(e.epoch, true)
	case classObject:
		return s.recoversObject(e, keys)
	case classAmbiguous, classWrongKey:
		// After a logout elsewhere some modules answer so.
		switch s.checkSessions() {
		case healthy:
			return false
		case loggedOut:
			return s.renew(e.epoch, false)
		}
		return s.renew(e.epoch, true)
	}
	return false
}

func (s *Store) recoversObject(e *Error, keys []*object) bool {
	switch s.checkSessions() {
	case loggedOut:
		return s.renew(e.epoch, false)
	case broken:
		return s.renew(e.epoch, true)
	}
	again := false
	for _, k := range keys {
		again = k.forget(e.epoch) || again
	}
	return again
}

// renew makes a new epoch unless there is one newer than the one that failed.
// It waits until every call under way has returned.
func (s *Store) renew(failed uint64, restart bool) bool {
	s.recovery.mu.Lock()
	defer s.recovery.mu.Unlock()
	s.mod.drain.Lock()
	defer s.mod.drain.Unlock()
	if s.closed {
		return false
	}
	if s.ready && s.epoch.Load() != failed && s.generation == s.mod.generation {
		return true
	}
	if time.Now().Before(s.recovery.retry) {
		return false
	}
	err := s.renewNow(restart)
	s.recovery.err = err
	if err == nil {
		s.recovery.pause = 0
		return true
	}
	s.recovery.pause = min(max(2*s.recovery.pause, firstPause), longestPause)
	s.recovery.retry = time.Now().Add(s.recovery.pause)
	return false
}

// renewNow opens the sessions again; where that fails, or the caller knows that
// it would, it initialises the module first, unless another store of this
// process did so already.
func (s *Store) renewNow(restart bool) error {
	moved := s.generation != s.mod.generation
	s.stop()
	if !restart || moved {
		err := s.start()
		if err == nil || classOf(err) == classPIN || errors.Is(err, keystore.ErrPIN) {
			return err
		}
	}
	if err := s.mod.restart(); err != nil {
		return err
	}
	return s.start()
}

type health int

const (
	healthy health = iota
	loggedOut
	broken
)

// checkSessions asks whether the device still does what it must be able to do:
// so is a failure told from data that does not open. Bad data is cheap to send,
// so what it costs is bounded.
func (s *Store) checkSessions() health {
	s.recovery.mu.Lock()
	defer s.recovery.mu.Unlock()
	if time.Since(s.recovery.checked) < checkEvery {
		return healthy
	}
	in := false
	err := s.on(s.anchors, 0, func(session uint) error {
		if in = s.token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 || s.loggedIn(session); !in {
			return nil
		}
		return s.selfTest(session)
	})
	switch c := classOf(err); {
	case errors.Is(err, keystore.ErrBusy), errors.Is(err, keystore.ErrClosed):
		return healthy // nothing is known
	case err == nil && !in, c == classStale, c == classSession:
		return loggedOut
	case err != nil:
		return broken
	}
	s.recovery.checked = time.Now()
	return healthy
}

// selfTest makes a session key, uses it and destroys it.
func (s *Store) selfTest(session uint) error {
	k, err := s.generate(session, pkcs11.CKM_AES_KEY_GEN, s.templates[keystore.AES128CBC].generate)
	if err != nil {
		return err
	}
	defer s.destroy(session, k.handle)
	var block, iv [16]byte
	_, err = s.encrypt(session, k.handle, pkcs11.CKM_AES_CBC, iv[:], block[:], block[:])
	return err
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
// learn, unless the device itself is at fault.
func (s *Store) badData(what string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	if c := e.class(); c != classAmbiguous && e.Code != pkcs11.CKR_KEY_SIZE_RANGE && e.Code != pkcs11.CKR_ATTRIBUTE_VALUE_INVALID {
		return s.explain(err)
	}
	if s.checkSessions() != healthy {
		return s.explain(fmt.Errorf("%w: %w", err, keystore.ErrUnavailable))
	}
	return fmt.Errorf("hsm: %s: %w", what, keystore.ErrBadData)
}
