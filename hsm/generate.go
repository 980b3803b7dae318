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
	return s.session(a, func(session uint) (made, error) {
		return s.generate(session, k.generate, s.templates[a].generate)
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
	// Room for the value, so that no copy of it is left behind.
	t := make(template, 0, len(templates.imported)+2*word+a.Size())
	t = append(t, templates.imported...).add(pkcs11.CKA_VALUE, raw)
	defer clear(t)
	return s.session(a, func(session uint) (made, error) { return s.create(session, t) })
}

// session makes a session key that may be wrapped until it is sealed.
func (s *Store) session(a keystore.Algorithm, op func(session uint) (made, error)) (keystore.Key, error) {
	k := &object{store: s, algorithm: a}
	err := s.attempt(func() error {
		return s.on(s.anchors, 0, func(session uint) error {
			m, err := op(session)
			if err == nil {
				m, err = s.born(session, m, a, false)
			}
			k.handle, k.epoch = m.handle, s.epoch.Load()
			return err
		})
	})
	if err != nil {
		return nil, s.explain(err)
	}
	return k.typed(), nil
}

// generateSessionPair makes a pair whose public half is read and then not
// needed in the token any more.
func (s *Store) generateSessionPair(a keystore.Algorithm, kd kind) (keystore.Key, error) {
	public, private := kd.pair(a, false, nil)
	k := &object{store: s, algorithm: a}
	err := s.attempt(func() error {
		return s.on(s.anchors, 0, func(session uint) error {
			m, half, err := s.generatePair(session, kd.generate, public, private)
			if err != nil {
				return err
			}
			k.public, err = s.publicKey(session, half, kd.keyType)
			err = errors.Join(err, s.destroy(session, half))
			if err == nil && (m.sensitive != 1 || m.extractable != 0) {
				err = fmt.Errorf("hsm: the token does not protect a new private key as it was told: %w", keystore.ErrWeakKey)
			}
			if err != nil {
				return errors.Join(err, s.destroy(session, m.handle))
			}
			s.objects.Add(1)
			k.handle, k.epoch = m.handle, s.epoch.Load()
			return nil
		})
	})
	if err != nil {
		return nil, s.explain(err)
	}
	return k.typed(), nil
}
