package hsm

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A session is a place in a pool for one PKCS #11 session. Only the
// goroutine that took it from the pool uses or closes it.
type session struct {
	handle     uint
	epoch      uint64 // 0: not open
	generation uint64 // of the module that opened it

	origin *origin       // of what it makes
	since  atomic.Int64  // the tick of the watch at which the operation under way began, or 0
	shown  atomic.Uint64 // the handle, for the watch
	seen   sight         // what the watch saw
}

// take waits for a session, but not forever.
func (c *connection) take(p *pool) (*session, error) {
	if own := p.pop(); own != nil {
		return own, nil
	}
	if own := p.grow(); own != nil {
		return own, nil
	}
	if own := p.popOrWait(); own != nil {
		return own, nil
	}
	own, err := c.handedBy(p)
	if own == nil {
		own = p.stopWaiting()
	}
	if own != nil {
		return own, nil
	}
	return nil, err
}

// handedBy waits for a session that is handed over. With an error the caller has to stop
// waiting.
func (c *connection) handedBy(p *pool) (*session, error) {
	start := time.Now()
	p.dry.CompareAndSwap(nil, &start)
	for {
		end := patience(start, p.dry.Load(), c.wait)
		timer := time.NewTimer(time.Until(end))
		select {
		case own := <-p.handed:
			timer.Stop()
			return own, nil
		case <-c.done:
			timer.Stop()
			return nil, errClosed
		case <-timer.C:
			if !patience(start, p.dry.Load(), c.wait).After(end) {
				return nil, fmt.Errorf("hsm: all %d PKCS #11 sessions have been in use for %v: %w", p.granted(), c.wait, keystore.ErrBusy)
			}
		}
	}
}

// on runs op on a session of the pool, and tells it the epoch. It answers
// errStale, without running op, where the sessions were renewed since the epoch
// that the caller's handles are of: a token may have given such a handle to
// another object meanwhile. Epoch 0 asks for no particular one.
func (c *connection) on(p *pool, epoch uint64, op func(session uint, epoch uint64) error) error {
	var start time.Time
	for {
		err := c.once(p, epoch, op)
		if err == nil || classOf(err) != classBusy {
			if c.crowded.Load() != nil {
				c.crowded.Store(nil)
			}
			return err
		}
		now := time.Now()
		if start.IsZero() {
			start = now
			c.crowded.CompareAndSwap(nil, &now)
		}
		if now.After(patience(start, c.crowded.Load(), c.wait)) {
			return c.unreached(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (c *connection) once(p *pool, epoch uint64, op func(session uint, epoch uint64) error) (err error) {
	if stuck := c.watch.stuck.Load(); stuck != nil {
		return c.unreached(stuck.err())
	}
	m := measure{module: c.functions, tell: c.told}
	own := p.pop()
	if own == nil {
		m.wait()
		if own, err = c.take(p); err != nil {
			m.giveUp(err)
			return err
		}
	}
	denied := false // by a token that has no more
	defer func() {
		if !denied || !p.drop(own) {
			p.put(own, err == nil)
		}
	}()
	denied, err = c.inside(p, own, epoch, &m, op)
	return err
}

// inside is once with a session. It reports whether the token has no more of them.
func (c *connection) inside(p *pool, own *session, epoch uint64, m *measure, op func(session uint, epoch uint64) error) (denied bool, err error) {
	entered := c.mod.gate.tryEnter()
	if !entered {
		m.wait()
		entered = c.mod.gate.enter(c.wait)
	}
	if !entered {
		m.giveUp(keystore.ErrBusy)
		return false, fmt.Errorf("hsm: the PKCS #11 module has been restarting for %v: %w", c.wait, keystore.ErrBusy)
	}
	defer c.mod.gate.leave()
	now, err := c.current(epoch)
	if err != nil {
		return false, err
	}
	c.watch.begin(own)
	defer own.since.Store(0)
	if own.epoch != now.epoch || own.origin.isRetired() {
		m.wait()
		if err := c.fill(own, now); err != nil {
			if denied = classOf(err) == classBusy; !denied {
				m.giveUp(err)
			}
			return denied, at(err, now.epoch)
		}
	}
	m.run(own.handle)
	err = op(own.handle, now.epoch)
	m.end(own.handle, err)
	if err == nil {
		return false, nil
	}
	if !p.anchor && (c.anchors != c.sessions || endsOnly(err)) {
		// An operation may still be active in it, so nobody gets it again.
		c.empty(own)
	}
	return false, at(err, now.epoch)
}

// endsOnly reports whether a failure ends the only session that a token has, with the login and what
// was made in it. An answer about data or a key ends the operation, but no session (PKCS #11 v2.40,
// 5.1); where it did not, the next operation is told so.
func endsOnly(err error) bool {
	c := classOf(err)
	return c == classStale || c == classSession || c == classDevice || answered(err, pkcs11.CKR_OPERATION_ACTIVE)
}

// current returns the life that there is now, if it is that of the epoch.
func (c *connection) current(epoch uint64) (*life, error) {
	now := c.life.Load()
	switch {
	case c.isClosed():
		return nil, errClosed
	case now == nil || now.generation != c.mod.generation.Load():
		return nil, &Error{stale: true}
	case epoch != 0 && epoch != now.epoch:
		return nil, &Error{stale: true, epoch: epoch}
	}
	return now, nil
}

// fill opens the session of a place in a pool, and closes the one it had.
func (c *connection) fill(own *session, now *life) (err error) {
	c.empty(own)
	if own.handle, err = c.openSession(now.slot); err != nil {
		abandon(c, own.handle)
		return err
	}
	own.epoch, own.generation = now.epoch, now.generation
	own.origin = &origin{session: openSession{own.handle, own.generation}}
	c.origins.Store(own.handle, own.origin)
	own.shown.Store(uint64(own.handle))
	c.open.Add(1)
	return nil
}

// abandon closes the session whose handle C_OpenSession returned although it failed:
// it may be open. The handle of a session in a pool is ignored.
func abandon(c *connection, handle uint) {
	if handle != 0 && holder(c, handle) == nil {
		_ = c.closeSession(handle)
	}
}

// holder returns the origin of the session in a pool that has a handle, or nil. Of several places
// it is the one that was filled last: the sessions of the others are gone, and some of them may be
// of a module that was initialized again since.
func holder(c *connection, handle uint) *origin {
	found, _ := c.origins.Load(handle)
	if o, _ := found.(*origin); o != nil && o.session.generation == c.mod.generation.Load() {
		return o
	}
	return nil
}

// empty closes the session of a place in a pool, unless it is gone and the module has given its
// handle to another one of the pools. Its remains are handed on last:
// the graves drop a session whose handle a pool still has.
func (c *connection) empty(own *session) {
	if own.epoch == 0 {
		return
	}
	open, left := openSession{own.handle, own.generation}, false
	retired := own.origin.isRetired() && !c.isClosed()
	if !retired && holder(c, own.handle) == own.origin {
		left = !c.closeTwice(own.handle)
	}
	c.origins.CompareAndDelete(own.handle, own.origin)
	own.shown.Store(0)
	own.epoch = 0
	c.open.Add(-1)
	switch {
	case retired:
		c.detach(own.origin)
	case left:
		c.graves.closeLater(open)
	}
}

// at notes the epoch in a module's answer.
func at(err error, epoch uint64) error {
	var e *Error
	if errors.As(err, &e) {
		e.epoch = epoch
	}
	return err
}
