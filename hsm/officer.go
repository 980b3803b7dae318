package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// CreateTrusted is Create for a sealing key that is a trusted wrapping key (CKA_TRUSTED),
// which only the security officer can make. On some tokens the officer can make only
// objects that need no login. So the key is first a session object, which no other process
// sees, and the user copies it to a private token object (C_CopyObject). A nil PIN means
// that the token asks for it. The store's sessions are opened again, and session keys that
// were not sealed are lost.
func (s *Store) CreateTrusted(label string, a keystore.Algorithm, soPIN []byte) (keystore.Version, error) {
	k, err := s.kindOf(a)
	if err != nil || !k.trusts() {
		return keystore.Version{}, fmt.Errorf("hsm: a %v key cannot be trusted: only sealing keys for trusted wrapping can: %w", a, errors.ErrUnsupported)
	}
	seed, err := officer{s, soPIN}.seed(k, a)
	if err != nil {
		return keystore.Version{}, err
	}
	v, err := s.provisioner.provision(label, a, func(session uint, name template, omit []uint) ([]uint, error) {
		key, err := seed.grow(session, name, omit)
		return []uint{key}, err
	})
	seed.end()
	return v.keyIn(s), err
}

// MarkTrusted marks a version of a sealing key as a trusted wrapping key, as the security
// officer. If the token's officer cannot mark existing keys the error is
// [errors.ErrUnsupported].
func (s *Store) MarkTrusted(label string, version uint32, soPIN []byte) error {
	v, err := s.rings.findVersion(label, version)
	if err != nil {
		return s.recovery.explain(err)
	}
	if !v.mark.reseals || v.mark.trusted {
		return fmt.Errorf("hsm: %s version %d is trusted already, or is not a sealing key for trusted wrapping: %w", label, version, keystore.ErrWrongKey)
	}
	o := officer{s, soPIN}
	end, err := o.run(func(session uint) error { return o.mark(session, label, v.id) })
	s.rings.forgetLabel(label)
	end()
	return err
}

// An officer is the security officer of the token of a store.
type officer struct {
	*Store
	pin []byte
}

// run runs op in a session of the security officer. A process is logged in to a token in
// one role at a time, so the sessions of the store are closed before; its next operation
// opens them again. The officer's session stays open without a login until end. A failure
// that another process's login can cause is retried, see [connection.patiently].
func (o officer) run(op func(session uint) error) (end func(), err error) {
	for try := range 8 {
		if end, err = o.once(op); !passing(err) {
			return end, err
		}
		end()
		time.Sleep(time.Duration(10+10*try+rand.IntN(20)) * time.Millisecond)
		if again := o.mod.restartAlone(o.wait); again != nil {
			return func() {}, errors.Join(err, again)
		}
	}
	return func() {}, err
}

func (o officer) once(op func(session uint) error) (end func(), err error) {
	end = func() {}
	if o.isClosed() {
		return end, errClosed
	}
	err = o.mod.alone(o.wait, func() error {
		token, err := o.access.choose()
		if err != nil {
			return err
		}
		o.leave()
		session, err := o.openSession(token.slot)
		if err != nil {
			return err
		}
		end = func() { _ = o.mod.inside(o.wait, func() error { return o.closeSession(session) }) }
		switch err = o.login(session, token, SecurityOfficer, o.pin); {
		case errors.Is(err, keystore.ErrPIN):
			return o.mod.refusedPIN(token.slot, SecurityOfficer, err)
		case err != nil:
			return err
		}
		return errors.Join(op(session), o.logout(session))
	})
	return end, err
}

// mark sets CKA_TRUSTED of the key with a label and identifier.
func (o officer) mark(session uint, label string, id []byte) error {
	found, err := o.find(session, template{}.flag(pkcs11.CKA_TOKEN, true).add(pkcs11.CKA_LABEL, []byte(label)).add(pkcs11.CKA_ID, id))
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("hsm: the security officer of the token does not see the key %q: %w", label, errors.ErrUnsupported)
	}
	if _, err := o.set(session, found[0], template{}.flag(pkcs11.CKA_TRUSTED, true)); err != nil {
		return fmt.Errorf("%w: the security officer of the token cannot mark an existing key (CKA_TRUSTED): %w", err, errors.ErrUnsupported)
	}
	return o.isTrusted(session, found[0])
}

// isTrusted refuses a key that the module did not make a trusted one.
func (l objectCalls) isTrusted(session, handle uint) error {
	b, err := l.attribute(session, handle, pkcs11.CKA_TRUSTED)
	if err == nil && !bytes.Equal(b, []byte{1}) {
		err = fmt.Errorf("hsm: the module does not keep CKA_TRUSTED of a key: %w", errors.ErrUnsupported)
	}
	return err
}

// leave closes the sessions of the store, while nobody calls the module.
func (c *connection) leave() {
	c.life.Store(nil)
	for _, p := range []*pool{c.sessions, c.anchors} {
		for _, own := range p.all {
			c.empty(own)
		}
	}
}

// A seed is a trusted key that is an object of a session.
type seed struct {
	*connection
	handle     uint
	generation uint64
	end        func()
}

// seed makes one.
func (o officer) seed(k kind, a keystore.Algorithm) (seed, error) {
	s := seed{connection: o.connection}
	var err error
	s.end, err = o.run(func(session uint) error {
		s.generation = o.mod.generation.Load()
		_, err := leavingOut(optionals(), func(omit []uint) error {
			m, err := o.generate(session, k.generate, k.seed(a).without(omit))
			s.handle = m.handle
			return err
		}, func() error { return nil })
		if err != nil {
			return fmt.Errorf("%w: the security officer of the token makes no trusted key (CKA_TRUSTED)", err)
		}
		return o.isTrusted(session, s.handle)
	})
	if err != nil {
		s.end()
		return s, err
	}
	return s, nil
}

// seed is the template of a seed: as the key is to be, but public, copyable and of the session.
func (k kind) seed(a keystore.Algorithm) template {
	t := k.secret(false, false).number(pkcs11.CKA_VALUE_LEN, uint(a.Size())).without([]uint{pkcs11.CKA_PRIVATE})
	t = k.fixed(t.flag(pkcs11.CKA_PRIVATE, false).flag(pkcs11.CKA_TRUSTED, true))
	return t.without([]uint{ckaCopyable, pkcs11.CKA_MODIFIABLE}).flags(true, ckaCopyable, pkcs11.CKA_MODIFIABLE)
}

// grow makes the private key of the token.
func (s seed) grow(session uint, name template, omit []uint) (uint, error) {
	if s.generation != s.mod.generation.Load() {
		return 0, fmt.Errorf("hsm: the module was initialized again, and a new key was lost: %w; try again", keystore.ErrUnavailable)
	}
	t := append(template{}.flags(true, pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE), name...)
	key, err := s.copy(session, s.handle, t.flags(false, ckaCopyable, pkcs11.CKA_MODIFIABLE).without(omit))
	if err != nil {
		return 0, err
	}
	return key, s.isTrusted(session, key)
}
