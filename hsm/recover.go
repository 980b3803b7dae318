package hsm

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// Bounds on the work that failures cause.
const (
	firstPause   = 25 * time.Millisecond  // after a recovery that failed
	longestPause = 500 * time.Millisecond // so that a device that is back is found within a second
	burst        = 6                      // recoveries that work, before the next has to wait the spacing
	spacing      = 1500 * time.Millisecond
	quietTime    = 10 * time.Second // without a recovery: the next one begins gently again
	longestTry   = 5                // times that one operation runs
	vainTime     = time.Minute      // after a recovery that did not help against an answer: none because of it
)

// A recovery runs operations again where that helps, and gets a lost device back.
type recovery struct {
	*connection
	test selfTester
	vain atomic.Pointer[vainAnswer]

	mu      sync.Mutex
	running chan struct{} // of the one under way: closed when it ends
	began   time.Time
	ended   time.Time // when the last one that worked ended
	retry   time.Time // none begins before
	login   time.Time // nor before that, while the answers to the PIN are unclear
	pause   time.Duration
	err     error // of the last one
	budget  *rate.Limiter
	lost    outage.Outage // as logged
}

// A vainAnswer is one with good data, because of which a recovery began, and which did not go away
// yet.
type vainAnswer struct {
	answer string
	until  time.Time
}

// attempt runs op until it works, or its failure is established: on another session,
// with new sessions, and after the module was initialized again, where each makes
// sense. If the data may be at fault, check decides: it does a similar operation with
// data known to be good. If op fails again after check worked, its error is marked as
// sound: the device is not at fault.
//
// If the token does not know a key that can be found or unsealed again, the key is not lost.
func (r *recovery) attempt(op, check func() error, keys ...*object) error {
	err := r.attempts(op, check, keys)
	if err == nil {
		return nil
	}
	noteKept(err, keys)
	if classOf(err) == classStale {
		return r.unreached(err)
	}
	return err
}

// noteKept notes in a module's answer whether all keys of the operation can be had again.
func noteKept(err error, keys []*object) {
	var e *Error
	if errors.As(err, &e) {
		e.kept = len(keys) > 0 && !slices.ContainsFunc(keys, (*object).mayBeLost)
	}
}

func (r *recovery) attempts(op, check func() error, keys []*object) error {
	if stuck := r.watch.stuck.Load(); stuck != nil {
		return r.unreached(stuck.err())
	}
	err := op()
	if err != nil && errors.As(err, new(*Error)) {
		r.graves.trouble()
	}
	for try := 1; err != nil && try < longestTry; try++ {
		switch r.remedy(err, try, check, keys) {
		case giveUp:
			return err
		case again:
			if err = op(); err == nil {
				r.vain.Store(nil)
			}
		case verdict:
			err = op()
			var e *Error
			if errors.As(err, &e) && e.class() != classStale {
				e.sound = e.garbage == "" // which no data brings about
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

// remedy does what the failure of a try requires. The first failure of a session or the
// device requires only another session: keys must not be lost to a failure that passes.
func (r *recovery) remedy(err error, try int, check func() error, keys []*object) remedy {
	var e *Error
	if !errors.As(err, &e) {
		return giveUp
	}
	switch c := e.class(); {
	case c == classStale:
		return worth(r.renew(e.epoch, false))
	case c == classPIN, c == classBusy:
		return giveUp
	case try == 1:
		return again
	case c == classSession:
		return worth(r.renew(e.epoch, r.recent()))
	case c == classDevice:
		return worth(r.renew(e.epoch, true))
	case c == classObject:
		return r.findAgain(e, keys)
	}
	if check == nil {
		check = r.check
	}
	if failed := check(); failed != nil {
		return r.renewFor(e, failed)
	}
	return verdict
}

// renewFor begins a new life where a check failed.
func (r *recovery) renewFor(e *Error, failed error) remedy {
	switch {
	case errors.Is(failed, keystore.ErrBusy), errors.Is(failed, keystore.ErrClosed):
		return giveUp // nothing is known
	case (refuses(failed) || r.inVain(e, failed)) && r.check() == nil:
		return giveUp // the module works otherwise, and a new life would cost the keys of all sessions
	case classOf(failed) == classStale, classOf(failed) == classSession:
		return worth(r.renew(e.epoch, r.recent()))
	}
	renewed := r.renew(e.epoch, true)
	if renewed {
		r.vain.Store(&vainAnswer{failed.Error(), time.Now().Add(vainTime)})
	}
	return worth(renewed)
}

// inVain reports whether a recovery because of the same failure did not help, a short time ago.
// One of an older life says nothing about that.
func (r *recovery) inVain(e *Error, failed error) bool {
	v := r.vain.Load()
	return v != nil && v.answer == failed.Error() && time.Now().Before(v.until) && !r.alive(e.epoch)
}

// refuses reports whether a module does not do something however often it is initialized: it
// says so, does not take the attributes, or protects no key that comes of it, nor lets that be
// repaired.
func refuses(err error) bool {
	var e *Error
	other := errors.As(err, &e) && e.class() == classOther
	return errors.Is(err, keystore.ErrWeakKey) || classOf(err) == classUnsupported || quirkUnknownAttribute.is(err) || quirkTemplate.is(err) ||
		other && e.Function == "C_SetAttributeValue"
}

// findAgain drops the handles of keys that the token does not know any more.
func (r *recovery) findAgain(e *Error, keys []*object) remedy {
	if failed := r.check(); failed != nil {
		return r.renewFor(e, failed)
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
// the module may never return. No caller waits longer than Config.Wait.
func (r *recovery) renew(failed uint64, restart bool) bool {
	r.mu.Lock()
	now := time.Now()
	switch {
	case r.isClosed():
		r.mu.Unlock()
		return false
	case r.alive(failed):
		r.mu.Unlock()
		return true
	case r.running == nil && !r.due(now),
		r.running != nil && now.Sub(r.began) > r.wait: // it hangs
		r.mu.Unlock()
		return false
	case r.running == nil:
		r.running, r.began = make(chan struct{}), now
		go r.recover(restart)
	}
	running, began := r.running, r.began
	r.mu.Unlock()
	timer := time.NewTimer(time.Until(patience(now, &began, r.wait)))
	defer timer.Stop()
	select {
	case <-running:
	case <-r.done:
	case <-timer.C:
	}
	return r.alive(failed)
}

// alive reports whether the sessions live, and not in the epoch that failed.
func (r *recovery) alive(failed uint64) bool {
	now := r.life.Load()
	return now != nil && now.epoch != failed && now.generation == r.mod.generation.Load()
}

// recover begins a new life, and notes what came of it.
func (r *recovery) recover(restart bool) {
	r.watch.begin(&r.watch.keeper)
	err := r.renewNow(restart)
	r.watch.keeper.since.Store(0)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(time.Now(), err)
	r.tell(err)
	close(r.running)
	r.running = nil
}

// due reports whether a recovery may begin. The caller holds the recovery's lock.
func (r *recovery) due(now time.Time) bool {
	if now.Before(r.login) && r.access.unclear.Load() > 0 {
		return false
	}
	return !now.Before(r.retry) && r.budget.TokensAt(now) >= 1
}

// note records the result of a recovery. A failed one takes nothing from the budget: the pause
// after it bounds the work. The caller holds the recovery's lock.
func (r *recovery) note(now time.Time, err error) {
	r.err = err
	if err != nil {
		r.pause = longer(r.pause)
		r.retry = now.Add(r.pause)
		if errors.Is(err, keystore.ErrUnclear) {
			r.login = now.Add(keystore.PINPause(int(r.access.unclear.Load())))
		}
		return
	}
	r.budget.AllowN(now, 1)
	r.ended, r.pause, r.retry = now, 0, now
}

func longer(pause time.Duration) time.Duration { return min(max(2*pause, firstPause), longestPause) }

// renewNow opens the sessions anew; where that fails, or the caller knows that it
// would, it initializes the module first, unless another store of this process
// did so already, or is to be spared. This does not help if the token refused the PIN, but may
// if it was misread and seems to have none. After an unclear answer the PIN is given once.
func (r *recovery) renewNow(restart bool) error {
	now := r.life.Load()
	moved := now != nil && now.generation != r.mod.generation.Load()
	spare := r.mod.spares(r.connection)
	if !restart && r.access.unclear.Load() == 0 || moved || spare {
		err := r.guardedStart()
		if err == nil || spare || errors.Is(err, keystore.ErrPIN) && !passing(err) || errors.Is(err, keystore.ErrClosed) {
			return err
		}
	}
	r.life.Store(nil)
	if r.isClosed() {
		return errClosed
	}
	if err := r.mod.restart(r.wait); err != nil {
		return err
	}
	return r.guardedStart()
}

// guardedStart is start as a call into the module.
func (r *recovery) guardedStart() error {
	if !r.mod.gate.enter(r.wait) {
		return fmt.Errorf("hsm: the PKCS #11 module is in use by a call that does not return: %w", keystore.ErrBusy)
	}
	defer r.mod.gate.leave()
	if r.isClosed() {
		return errClosed
	}
	return r.start()
}

// check asks whether the device does what it must be able to do: so is a failure
// of the device told from one of the data.
func (r *recovery) check() error {
	return r.on(r.sessions, 0, func(session uint, _ uint64) error {
		if err := r.checkLogin(session); err != nil {
			return err
		}
		return r.test.run(session)
	})
}

// explain adds to a failure why the device did not come back.
func (r *recovery) explain(err error) error {
	if err == nil || !errors.Is(err, keystore.ErrUnavailable) {
		return err
	}
	if now := r.life.Load(); now != nil && now.token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 && answered(err, pkcs11.CKR_USER_NOT_LOGGED_IN) {
		return fmt.Errorf("%w: the PKCS #11 token %q requires a login without saying so (CKF_LOGIN_REQUIRED), so no PIN was given to it: ask its vendor", err, now.token.Label)
	}
	if refused := r.access.refused.Load(); refused != nil {
		return fmt.Errorf("%w; opening the PKCS #11 token again fails: %w", err, *refused)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		return err
	}
	// Its text only: that there is no token now does not mean that there is no
	// such key.
	err = fmt.Errorf("%w; opening the PKCS #11 token again fails: %v", err, r.err)
	if errors.Is(r.err, keystore.ErrUnclear) {
		return keystore.Unclear(fmt.Errorf("%w; the PIN is given again after pauses that grow to a minute, since it may be wrong and the token may count", err))
	}
	return err
}

// badData turns the answer to a peer's data into the one error that a peer may
// learn, if the device is known to be sound.
func (r *recovery) badData(what string, err error) error {
	var e *Error
	switch {
	case errors.Is(err, keystore.ErrBadData) || !errors.As(err, &e):
		return err
	case !e.sound:
		return r.explain(err)
	}
	return fmt.Errorf("hsm: %s: %w", what, keystore.ErrBadData)
}

// ours returns the error of an operation on this store's own data and keys: whatever
// the module reports, the device is at fault.
func (r *recovery) ours(err error) error {
	if err == nil || errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrBusy) || errors.Is(err, keystore.ErrClosed) {
		return r.explain(err)
	}
	return r.explain(fmt.Errorf("%w: %w", err, keystore.ErrUnavailable))
}
