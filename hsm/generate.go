package hsm

import (
	"crypto"
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
		return s.generate(session, k.generate, s.templates[a].generate.identified(id))
	})
}

// Import makes a session key of bytes that this process has seen.
func (s *Store) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	templates, known := s.templates[a]
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
	err := s.attempt(func() error {
		return s.on(s.anchors, 0, func(session uint, epoch uint64) error {
			id := s.newID()
			m, err := op(session, id)
			m.epoch, m.id, m.origin = epoch, id, s.originOf(session)
			if err = s.born(session, &m, a, false, err); err != nil {
				doubts = doubt(doubts, m.ref)
				return err
			}
			k.ref = m.ref
			return nil
		})
	}, nil)
	s.settle(doubts, err)
	if err != nil {
		return nil, s.explain(err)
	}
	return k.typed(), nil
}

// discard destroys an object that was just made.
func (s *Store) discard(session uint, dead ref) {
	if dead.handle != 0 && s.destroy(session, dead.handle) != nil {
		s.bury(dead)
	}
}

// doubt notes an object that a module said it did not make: it may have failed
// after it did.
func doubt(all []ref, r ref) []ref {
	if r.handle != 0 {
		return all
	}
	return append(all, r)
}

// settle buries what may be there. Where the device is sound and the data was at
// fault there is nothing, and what was of an older life died with it.
func (s *Store) settle(doubts []ref, err error) {
	var e *Error
	now := s.life.Load()
	if now == nil || errors.As(err, &e) && e.sound {
		return
	}
	for _, d := range doubts {
		if d.epoch != now.epoch {
			continue
		}
		if s.bury(d); d.id == "" {
			s.retire(d.origin)
		}
	}
}

// generateSessionPair makes a pair whose public half is read and then not
// needed in the token any more.
func (s *Store) generateSessionPair(a keystore.Algorithm, kd kind) (keystore.Key, error) {
	k := &object{store: s, algorithm: a}
	var doubts []ref
	err := s.attempt(func() error {
		return s.on(s.anchors, 0, func(session uint, epoch uint64) (err error) {
			k.ref = ref{epoch: epoch, id: s.newID(), origin: s.originOf(session)}
			if k.public, err = s.bornPair(session, &k.ref, a, kd); err != nil {
				doubts = append(doubts, k.ref, k.ref.publicHalf())
			}
			return err
		})
	}, nil)
	s.settle(doubts, err)
	if err != nil {
		return nil, s.explain(err)
	}
	return k.typed(), nil
}

// publicHalf has an identifier of its own: the halves go at different times.
func (r ref) publicHalf() ref {
	half := ref{epoch: r.epoch, origin: r.origin}
	if r.id != "" {
		half.id = r.id + "p"
	}
	return half
}

// bornPair makes a pair and fills in the handle of the private half.
func (s *Store) bornPair(session uint, own *ref, a keystore.Algorithm, kd kind) (key crypto.PublicKey, err error) {
	half := own.publicHalf()
	public, private := kd.pair(a, false, nil)
	var m made
	m, half.handle, err = s.generatePair(session, kd.generate, public.identified(half.id), private.identified(own.id))
	if err == nil {
		key, err = s.publicKey(session, half.handle, kd.keyType)
	}
	s.discard(session, half)
	if err == nil && (m.sensitive != 1 || m.extractable != 0) {
		err = fmt.Errorf("hsm: the token did not apply the protection asked for to a new private key: %w", keystore.ErrWeakKey)
	}
	m.epoch, m.id, m.origin = own.epoch, own.id, own.origin
	if err != nil {
		s.discard(session, m.ref)
		return nil, err
	}
	*own = m.ref
	s.count(m.ref, 1)
	return key, nil
}
