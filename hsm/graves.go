package hsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// graves are the session objects that should be gone but may still exist: destroying
// them failed, or the module said that it did not make them, or that it does not know
// them. Destroying them later must not hit another object that got the same handle
// meanwhile. So for a minute after a failure, each new object gets a CKA_ID of its own,
// by which it is found again. An object without one is found by its handle, if the
// object there still has no CKA_ID. Without failures objects get none, since it costs a
// quarter of the time of making a key.
type graves struct {
	conn     *connection
	name     string                    // begins the CKA_ID of the session objects of this store
	made     atomic.Uint64             // how many objects got one
	troubled atomic.Pointer[time.Time] // until when session objects get one

	mu      sync.Mutex
	all     []ref
	seen    int // of those, known by a handle
	digging bool

	sessions []openSession // that could not be closed
	detached []*origin     // sessions that stay open for their objects
}

// An openSession is one that no pool has any more.
type openSession struct {
	handle     uint
	generation uint64 // of the module that opened it
}

// A ref is what leads to an object in the token.
type ref struct {
	handle uint    // 0: not known
	epoch  uint64  // of the life in which the handle is valid
	id     string  // its CKA_ID, if it has one
	origin *origin // of a session object
}

const (
	maxGraves   = 10000
	digTime     = 200 * time.Millisecond
	longestDig  = time.Second
	troubleTime = time.Minute
)

// trouble gives names to the objects that are made from now on.
func (g *graves) trouble() { g.troubled.Store(new(time.Now().Add(troubleTime))) }

// newID names a session object, while there is trouble.
func (g *graves) newID() string {
	if until := g.troubled.Load(); until == nil || time.Now().After(*until) {
		return ""
	}
	return g.name + string(binary.BigEndian.AppendUint64(nil, g.made.Add(1)))
}

// bury notes objects to be destroyed in the background.
func (g *graves) bury(all ...ref) {
	if len(all) == 0 {
		return
	}
	g.trouble()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, dead := range all {
		if dead.handle == 0 && dead.id == "" || len(g.all) == maxGraves {
			continue
		}
		g.all = append(g.all, dead)
		if dead.handle != 0 {
			g.seen++
		}
		g.startDigging()
	}
}

// startDigging has dig run. The caller holds the lock of the graves.
func (g *graves) startDigging() {
	if !g.digging {
		g.digging = true
		go g.dig()
	}
}

// closeLater notes a session to be closed in the background.
func (g *graves) closeLater(o openSession) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.sessions) < maxGraves {
		g.sessions = append(g.sessions, o)
		g.startDigging()
	}
}

// keep notes a session that stays open for its objects.
func (g *graves) keep(o *origin) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.detached = slices.DeleteFunc(g.detached, func(o *origin) bool { return o.closed.Load() })
	g.detached = append(g.detached, o)
}

// closeLeft closes the sessions that were left open.
func (g *graves) closeLeft() {
	g.mu.Lock()
	left := slices.Clone(g.sessions)
	g.mu.Unlock()
	for _, o := range left {
		if g.closeLeftOne(o) {
			g.mu.Lock()
			g.sessions = slices.DeleteFunc(g.sessions, func(other openSession) bool { return other == o })
			g.mu.Unlock()
		}
	}
}

// closeLeftOne reports whether the session is closed. Its handle may already be in use
// for another session, if the module closed it although it returned an error.
func (g *graves) closeLeftOne(o openSession) bool {
	if !g.conn.mod.gate.enter(g.conn.wait) {
		return false
	}
	defer g.conn.mod.gate.leave()
	if g.conn.isClosed() || o.generation != g.conn.mod.generation.Load() || holder(g.conn, o.handle) != nil {
		return true
	}
	err := g.conn.closeSession(o.handle)
	return err == nil || classOf(err) == classSession
}

// closeAbandoned closes what no pool has, at the end of the store.
func (g *graves) closeAbandoned() {
	left := g.forget()
	g.mu.Lock()
	left = append(left, g.sessions...)
	g.sessions = nil
	g.mu.Unlock()
	for _, o := range left {
		if o.generation == g.conn.mod.generation.Load() {
			_ = g.conn.closeSession(o.handle)
		}
	}
}

// forget is for a new life, in which no object of the old one is left. It returns
// the sessions that stayed open for such.
func (g *graves) forget() (open []openSession) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range g.detached {
		if o.closed.CompareAndSwap(false, true) {
			open = append(open, o.session)
		}
	}
	g.all, g.seen, g.detached = nil, 0, nil
	return open
}

// next is an object of the list, if there is one, and whether anything is left.
func (g *graves) next() (dead ref, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.all) > 0 {
		return g.all[0], true
	}
	g.digging = len(g.sessions) > 0
	return ref{}, g.digging
}

func (g *graves) size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen
}

// gone takes an object off the list.
func (g *graves) gone(dead ref) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.all, dead); i >= 0 {
		g.all = slices.Delete(g.all, i, i+1)
		if dead.handle != 0 {
			g.seen--
		}
	}
}

// dig destroys and closes what is on the lists until nothing is left.
func (g *graves) dig() {
	pause := digTime
	for {
		g.closeLeft()
		dead, more := g.next()
		if !more {
			return
		}
		if dead != (ref{}) && g.exhume(dead) == nil {
			g.gone(dead)
			pause = digTime
			continue
		}
		select {
		case <-g.conn.done:
			return
		case <-time.After(pause):
			pause = min(2*pause, longestDig)
		}
	}
}

// exhume destroys an object, if it still exists. Objects of an older life do not.
func (g *graves) exhume(dead ref) error {
	err := g.conn.on(g.conn.sessions, dead.epoch, func(session uint, _ uint64) error {
		if dead.id == "" {
			return g.destroyNameless(session, dead.handle)
		}
		found, err := g.conn.find(session, template{}.flag(pkcs11.CKA_TOKEN, false).add(pkcs11.CKA_ID, []byte(dead.id)))
		if err != nil {
			return err
		}
		for _, h := range found {
			if err := g.conn.destroy(session, h); err != nil {
				return err
			}
		}
		return nil
	})
	if now := g.conn.life.Load(); now != nil && now.epoch != dead.epoch {
		return nil
	}
	return err
}

// destroyNameless destroys the session object with that handle, unless it has a
// name, or there is none.
func (g *graves) destroyNameless(session, handle uint) error {
	all, err := g.conn.attributes(session, handle, pkcs11.CKA_TOKEN, pkcs11.CKA_ID)
	switch {
	case classOf(err) == classObject:
		return nil
	case err != nil:
		return err
	case !bytes.Equal(all[pkcs11.CKA_TOKEN], []byte{0}) || len(all[pkcs11.CKA_ID]) > 0:
		return nil // another one
	}
	return g.conn.destroy(session, handle)
}

// dispose destroys the object of a session key, now or in the background, unless it
// died with its session.
func (g *graves) dispose(dead ref) {
	if dead.epoch == 0 {
		return
	}
	defer g.count(dead, -1)
	err := g.conn.on(g.conn.anchors, dead.epoch, func(session uint, _ uint64) error {
		g.discard(session, dead)
		return nil
	})
	if errors.Is(err, keystore.ErrBusy) || errors.Is(err, keystore.ErrUnavailable) && classOf(err) != classStale {
		g.bury(dead)
	}
}

// count adds n to the number of live session objects, unless the life of r is over.
func (g *graves) count(r ref, n int64) {
	if now := g.conn.life.Load(); now != nil && now.epoch == r.epoch {
		now.objects.Add(n)
	}
	if r.origin.add(n) {
		g.closeLater(r.origin.session)
	}
}

// discard destroys an object that was just made.
func (g *graves) discard(session uint, dead ref) {
	if dead.handle != 0 && g.conn.destroy(session, dead.handle) != nil {
		g.bury(dead)
	}
}
