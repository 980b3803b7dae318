package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Generate makes a session key, or a session key pair, in the token.
func (s *Store) Generate(a keystore.Algorithm) (keystore.Key, error) {
	k, err := kindOf(a)
	switch {
	case s.isClosed():
		return nil, errClosed
	case err != nil || a.Sealing():
		return nil, fmt.Errorf("hsm: generate %v: %w", a, errors.ErrUnsupported)
	case !a.Secret():
		return s.generateSessionPair(a, k)
	}
	return s.session(a, func(session uint, id string) (made, error) {
		return s.generate(session, k.generate, s.births.templates[a].generate.identified(id))
	})
}

// Import makes a session key from bytes of this process.
func (s *Store) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	templates, known := s.births.templates[a]
	switch {
	case s.isClosed():
		return nil, errClosed
	case !known:
		return nil, fmt.Errorf("hsm: import %v: %w", a, errors.ErrUnsupported)
	case len(raw) != a.Size():
		return nil, fmt.Errorf("hsm: import %d bytes as %v: %w", len(raw), a, keystore.ErrBadData)
	}
	return s.session(a, func(session uint, id string) (made, error) {
		t := templates.imported.identified(id)
		// Room for the value, so that no copy of it is left behind.
		t = append(make(template, 0, len(t)+2*word+a.Size()), t...).add(pkcs11.CKA_VALUE, raw)
		defer clear(t)
		return s.create(session, t)
	})
}

// session makes a session key that may be wrapped until it is sealed.
func (s *Store) session(a keystore.Algorithm, op func(session uint, id string) (made, error)) (keystore.Key, error) {
	k := &object{store: s, algorithm: a}
	var doubts []ref
	err := s.recovery.attempt(func() error {
		return s.on(s.anchors, 0, func(session uint, epoch uint64) error {
			id := s.graves.newID()
			m, err := op(session, id)
			m.epoch, m.id, m.origin = epoch, id, s.originOf(session)
			if err = s.births.born(session, &m, a, false, err); err != nil {
				doubts = doubt(doubts, m.ref)
				return err
			}
			k.ref = m.ref
			return nil
		})
	}, nil)
	s.births.settle(doubts, err)
	if err != nil {
		return nil, s.recovery.explain(err)
	}
	return k.typed(), nil
}

// generateSessionPair makes a pair whose public half is read and then not
// needed in the token any more.
func (s *Store) generateSessionPair(a keystore.Algorithm, kd kind) (keystore.Key, error) {
	k := &object{store: s, algorithm: a}
	var doubts []ref
	err := s.recovery.attempt(func() error {
		return s.on(s.anchors, 0, func(session uint, epoch uint64) error {
			_, err := leavingOut(optionals()[1:], func(omit []uint) (err error) {
				if k.handle != 0 { // a try before this one made a pair
					s.graves.count(k.ref, -1)
					s.graves.discard(session, k.ref)
				}
				k.ref = ref{epoch: epoch, id: s.graves.newID(), origin: s.originOf(session)}
				if k.public, err = s.births.bornPair(session, &k.ref, a, kd, omit); err != nil {
					doubts = append(doubts, k.ref, k.ref.publicHalf())
				}
				return err
			}, func() error { return s.recovery.test.run(session) })
			return err
		})
	}, nil)
	s.births.settle(doubts, err)
	if err != nil {
		return nil, s.recovery.explain(err)
	}
	return k.typed(), nil
}
