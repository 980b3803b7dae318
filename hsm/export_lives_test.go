package hsm

import (
	"errors"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Forget makes the store treat the key's handle as unknown to the token.
func (s *Store) Forget(k keystore.Key) {
	o, _ := s.own(k)
	o.forget(s.life.Load().epoch)
}

// UseInRenewal begins to use a key while a renewal is in progress, and reports whether
// continuing the use after it is refused.
func (s *Store) UseInRenewal(k keystore.Key) (refused bool) {
	o, _ := s.own(k)
	now := s.life.Load()
	s.life.Store(nil) // as a renewal begins
	_, epoch, err := o.acquire()
	s.life.Store(now)
	if err != nil {
		return classOf(err) == classStale
	}
	defer o.release()
	s.recovery.renew(now.epoch, true)
	err = s.on(s.sessions, epoch, func(uint, uint64) error { return nil })
	return classOf(err) == classStale
}

// WhileInUse runs op while the key is in use, and returns what its handle then is.
func (s *Store) WhileInUse(k keystore.Key, op func()) error {
	o, _ := s.own(k)
	handle, epoch, err := o.acquire()
	if err != nil {
		return err
	}
	defer o.release()
	op()
	var tag [32]byte
	return s.on(s.sessions, epoch, func(session uint, _ uint64) error { return s.recovery.test.testTag(session, handle, tag[:]) })
}

// Retire gives up the session that made a key.
func (s *Store) Retire(k keystore.Key) {
	o, _ := s.own(k)
	s.retire(o.origin)
}

// Renew closes and opens the sessions.
func (s *Store) Renew(restart bool) error {
	if !s.recovery.renew(s.life.Load().epoch, restart) {
		return errors.New("no renewal")
	}
	return nil
}

// OriginIsLive reports whether a key's origin is a session of this life.
func (s *Store) OriginIsLive(k keystore.Key) bool {
	o, _ := s.own(k)
	for _, own := range s.anchors.all {
		if own.epoch == s.life.Load().epoch && own.origin == o.origin {
			return o.origin.objects.Load() > 0
		}
	}
	return false
}

// HoldAnchor holds one of the anchor sessions until it is released.
func (s *Store) HoldAnchor() (letGo func()) {
	own, err := s.take(s.anchors)
	if err != nil {
		return func() {}
	}
	return func() { s.anchors.put(own, false) }
}
