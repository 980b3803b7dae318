package hsm

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// graves are session objects that should be gone, and may not be: their
// destruction failed, or the module said that it did not make them, or that it
// does not know them. What destroys them must not hit another object that got the
// same handle meanwhile. So from the first failure on, and for a minute, objects
// get a CKA_ID, which no two of them share: one with a name goes by that, and one
// without by its handle, if there is still an object without a name. They have
// none otherwise, since a name costs as much as a quarter of the key.
type graves struct {
	mu      sync.Mutex
	all     []ref
	seen    int // of them, those that were seen
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
	handle uint    // 0: nobody has seen it
	epoch  uint64  // that the handle is of
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
func (s *Store) trouble() { s.troubled.Store(time.Now().Add(troubleTime).UnixNano()) }

// newID names a session object, while there is trouble.
func (s *Store) newID() string {
	if until := s.troubled.Load(); until == 0 || time.Now().UnixNano() > until {
		return ""
	}
	return s.name + string(binary.BigEndian.AppendUint64(nil, s.made.Add(1)))
}

// bury notes objects to be destroyed by and by.
func (s *Store) bury(all ...ref) {
	if len(all) == 0 {
		return
	}
	s.trouble()
	g := &s.graves
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
		s.startDigging()
	}
}

// startDigging has dig run. The caller holds the lock of the graves.
func (s *Store) startDigging() {
	if !s.graves.digging {
		s.graves.digging = true
		go s.dig()
	}
}

// closeLater notes a session to be closed by and by.
func (s *Store) closeLater(o openSession) {
	g := &s.graves
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.sessions) < maxGraves {
		g.sessions = append(g.sessions, o)
		s.startDigging()
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
func (s *Store) closeLeft() {
	g := &s.graves
	g.mu.Lock()
	left := slices.Clone(g.sessions)
	g.mu.Unlock()
	for _, o := range left {
		if s.closeLeftOne(o) {
			g.mu.Lock()
			g.sessions = slices.DeleteFunc(g.sessions, func(other openSession) bool { return other == o })
			g.mu.Unlock()
		}
	}
}

// closeLeftOne reports whether the session is closed. Its handle may have been
// given again by now, if the module closed it and said otherwise.
func (s *Store) closeLeftOne(o openSession) bool {
	if !s.mod.gate.enter(s.wait) {
		return false
	}
	defer s.mod.gate.leave()
	if s.isClosed() || o.generation != s.mod.generation.Load() || s.knows(o.handle) {
		return true
	}
	err := s.closeSession(o.handle)
	return err == nil || classOf(err) == classSession
}

// closeAbandoned closes what no pool has, at the end of the store.
func (s *Store) closeAbandoned() {
	left := s.graves.forget()
	s.graves.mu.Lock()
	left = append(left, s.graves.sessions...)
	s.graves.sessions = nil
	s.graves.mu.Unlock()
	for _, o := range left {
		if o.generation == s.mod.generation.Load() {
			_ = s.closeSession(o.handle)
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

func (g *graves) count() int {
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
func (s *Store) dig() {
	pause := digTime
	for {
		s.closeLeft()
		dead, more := s.graves.next()
		if !more {
			return
		}
		if dead != (ref{}) && s.exhume(dead) == nil {
			s.graves.gone(dead)
			pause = digTime
			continue
		}
		select {
		case <-s.done:
			return
		case <-time.After(pause):
			pause = min(2*pause, longestDig)
		}
	}
}

// exhume destroys an object, if it is still there. One of an older life is not.
func (s *Store) exhume(dead ref) error {
	err := s.on(s.sessions, dead.epoch, func(session uint, _ uint64) error {
		if dead.id == "" {
			return s.destroyNameless(session, dead.handle)
		}
		found, err := s.find(session, template{}.flag(pkcs11.CKA_TOKEN, false).add(pkcs11.CKA_ID, []byte(dead.id)))
		if err != nil {
			return err
		}
		for _, h := range found {
			if err := s.destroy(session, h); err != nil {
				return err
			}
		}
		return nil
	})
	if now := s.life.Load(); now != nil && now.epoch != dead.epoch {
		return nil
	}
	return err
}

// destroyNameless destroys the session object with that handle, unless it has a
// name, or there is none.
func (s *Store) destroyNameless(session, handle uint) error {
	all, err := s.attributes(session, handle, pkcs11.CKA_TOKEN, pkcs11.CKA_ID)
	switch {
	case classOf(err) == classObject:
		return nil
	case err != nil:
		return err
	case !bytes.Equal(all[pkcs11.CKA_TOKEN], []byte{0}) || len(all[pkcs11.CKA_ID]) > 0:
		return nil // another one
	}
	return s.destroy(session, handle)
}
