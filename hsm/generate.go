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
	var doubts []doubtful
	err := s.attempt(func() error {
		return s.on(s.anchors, 0, func(session uint, epoch uint64) error {
			id := s.newID()
			m, err := op(session, id)
			if err = s.born(session, id, &m, a, false, err); err != nil {
				doubts = doubt(doubts, id, epoch, m)
				return err
			}
			k.handle, k.epoch, k.id = m.handle, epoch, id
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
func (s *Store) discard(session uint, id string, m made) {
	if m.handle != 0 && s.destroy(session, m.handle) != nil {
		s.bury(grave{id, m.handle})
	}
}

// A doubtful object is one that a module said it did not make: it may have failed
// after it did.
type doubtful struct {
	id    string
	epoch uint64
}

func doubt(all []doubtful, id string, epoch uint64, m made) []doubtful {
	if m.handle != 0 {
		return all
	}
	return append(all, doubtful{id, epoch})
}

// settle buries what may be there. Where the device is sound and the data was at
// fault there is nothing, and what was of an older life died with it.
func (s *Store) settle(doubts []doubtful, err error) {
	var e *Error
	now := s.life.Load()
	if now == nil || errors.As(err, &e) && e.sound {
		return
	}
	for _, d := range doubts {
		if d.epoch == now.epoch {
			s.bury(grave{id: d.id})
		}
	}
}

// generateSessionPair makes a pair whose public half is read and then not
// needed in the token any more.
func (s *Store) generateSessionPair(a keystore.Algorithm, kd kind) (keystore.Key, error) {
	k := &object{store: s, algorithm: a}
	var doubts []doubtful
	err := s.attempt(func() error {
		return s.on(s.anchors, 0, func(session uint, epoch uint64) (err error) {
			k.id, k.epoch = s.newID(), epoch
			k.handle, k.public, err = s.bornPair(session, k.id, a, kd)
			if err != nil {
				doubts = append(doubts, doubtful{k.id, epoch})
				if k.id != "" {
					doubts = append(doubts, doubtful{k.id + publicMark, epoch})
				}
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

// publicMark ends the identifier of a public half: the halves go at different
// times.
const publicMark = "p"

func (s *Store) bornPair(session uint, id string, a keystore.Algorithm, kd kind) (uint, crypto.PublicKey, error) {
	half := id
	if half != "" {
		half += publicMark
	}
	public, private := kd.pair(a, false, nil)
	m, n, err := s.generatePair(session, kd.generate, public.identified(half), private.identified(id))
	var key crypto.PublicKey
	if err == nil {
		key, err = s.publicKey(session, n, kd.keyType)
	}
	s.discard(session, half, made{handle: n})
	if err == nil && (m.sensitive != 1 || m.extractable != 0) {
		err = fmt.Errorf("hsm: the token does not protect a new private key as it was told: %w", keystore.ErrWeakKey)
	}
	if err != nil {
		s.discard(session, id, m)
		return 0, nil, err
	}
	s.objects.Add(1)
	return m.handle, key, nil
}
