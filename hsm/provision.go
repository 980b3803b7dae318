package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Create makes the next version of the provisioned key label in the token. Each sealing
// algorithm has one fixed label.
func (s *Store) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	k, err := s.kindOf(a)
	if err != nil {
		return keystore.Version{}, err
	}
	v, err := s.provisioner.provision(label, a, func(session uint, name template, omit []uint) ([]uint, error) {
		if a.Secret() {
			t := append(k.secret(true, false).number(pkcs11.CKA_VALUE_LEN, uint(a.Size())), name...)
			m, err := s.generate(session, k.generate, k.fixed(t).without(omit))
			return []uint{m.handle}, err
		}
		public, private := k.pair(a, true, name)
		m, half, err := s.generatePair(session, k.generate, public, private.without(omit))
		return []uint{half, m.handle}, err
	})
	return v.keyIn(s), err
}

// Provision makes the next version of a provisioned key from bytes of this process; List
// shows that it was not made in the token. The caller keeps raw and wipes it.
func (s *Store) Provision(label string, a keystore.Algorithm, raw []byte) (keystore.Version, error) {
	k, err := s.kindOf(a)
	switch {
	case err != nil || !a.Secret() || a.Sealing():
		return keystore.Version{}, fmt.Errorf("hsm: provision %v from bytes: %w", a, errors.ErrUnsupported)
	case len(raw) != a.Size():
		return keystore.Version{}, fmt.Errorf("hsm: provision %d bytes as %v: %w", len(raw), a, keystore.ErrBadData)
	}
	v, err := s.provisioner.provision(label, a, func(session uint, name template, omit []uint) ([]uint, error) {
		t := make(template, 0, 2048) // room, so that no copy of raw is left behind
		t = k.fixed(append(append(t, k.secret(true, false)...), name...).add(pkcs11.CKA_VALUE, raw)).without(omit)
		defer clear(t)
		m, err := s.create(session, t)
		return []uint{m.handle}, err
	})
	return v.keyIn(s), err
}

// keyIn is the version for whoever asked for it, and the zero one if there is none.
func (v version) keyIn(s *Store) keystore.Version {
	if v.number == 0 {
		return keystore.Version{}
	}
	return keystore.Version{Number: v.number, Key: v.handleIn(s).typed()}
}

// How often a version is made anew where other programs make one at the same time.
const maxTwins = 30

// errTwins says that another program made the same version at the same time.
var errTwins = errors.New("hsm: another program made that version at the same time")

// A maker makes a key in the token, without the attributes that a module does not take: an
// object, or the two of a pair.
type maker func(session uint, name template, omit []uint) (handles []uint, err error)

// A provisioner changes the provisioned keys of a token.
type provisioner struct {
	*connection
	recovery  *recovery
	inspector *inspector
	rings     *rings
	mu        lock // held while keys change
}

// provision makes the next version of a key. Programs that do so at the same time
// cannot lock a token against each other. So after making its key, each looks whether
// another key has the same version; if so, it removes its own and makes a newer one. If
// two programs made the same version at the same time, at least one of them sees the
// other's key, so at most one is announced.
func (p *provisioner) provision(label string, a keystore.Algorithm, op maker) (version, error) {
	var none version
	if p.isClosed() {
		return none, errClosed
	}
	if label == "" || !keystore.LabelFits(p.inspector.prefix, label, a) {
		return none, fmt.Errorf("hsm: a %v key cannot have the label %q: %w", a, label, keystore.ErrWrongKey)
	}
	if err := p.useful(a); err != nil {
		return none, err
	}
	if err := p.mu.take(p.wait); err != nil {
		return none, err
	}
	defer p.mu.free()
	unlock, err := p.lockToken()
	if err != nil {
		return none, err
	}
	defer unlock()
	for range maxTwins {
		v, err := p.provisionOnce(label, a, op)
		if !errors.Is(err, errTwins) {
			return v, p.recovery.explain(readOnly(err))
		}
		time.Sleep(time.Duration(1+rand.IntN(40)) * time.Millisecond)
	}
	return none, fmt.Errorf("hsm: other programs keep making versions of the key %q: %w; try again", label, keystore.ErrBusy)
}

// readOnly says what follows where a token takes no changes.
func readOnly(err error) error {
	if answered(err, pkcs11.CKR_SESSION_READ_ONLY) || answered(err, pkcs11.CKR_TOKEN_WRITE_PROTECTED) {
		return fmt.Errorf("%w: the token is write-protected: its keys can be used, and not changed, until the vendor's tools lift that", err)
	}
	return err
}

// useful refuses keys that wrap and unwrap others in the token, where the module makes no
// objects that could be the others.
func (p *provisioner) useful(a keystore.Algorithm) error {
	if p.bare.Load() && (a == keystore.AESWrap128 || a == keystore.AESUnwrap128) {
		return fmt.Errorf("hsm: a token that makes no session objects has no use for a key that wraps or unwraps others in it: %w (%w)", keystore.ErrWrongKey, errors.ErrUnsupported)
	}
	return nil
}

func (p *provisioner) provisionOnce(label string, a keystore.Algorithm, op maker) (version, error) {
	var none version
	number, err := p.nextVersion(label, a)
	if err != nil {
		return none, err
	}
	id := keyID(label, number)
	omitted, err := p.make(label, id, op)
	if err != nil {
		return none, errors.Join(err, p.takeBack(label, id))
	}
	v, err := p.announce(label, number, id)
	if err != nil {
		if len(omitted) > 0 && errors.Is(err, keystore.ErrWeakKey) {
			err = fmt.Errorf("hsm: the module takes no keys with %s: %w", attributeNames(omitted), err)
		}
		if left := p.takeBack(label, id); left != nil {
			return none, fmt.Errorf("%w, after %v", left, err)
		}
		return none, fmt.Errorf("the new key is removed: %w", err)
	}
	if len(omitted) > 0 {
		p.log.Warn("the module rejects attributes of a new key", "label", label, "without", attributeNames(omitted))
	}
	p.rings.forgetLabel(label)
	_, _ = p.rings.ring(label) // so that it is known to be there, should it vanish
	return v, nil
}

// make makes a token object, and returns the attributes that the module does not take.
func (p *provisioner) make(label string, id []byte, op maker) (omitted []uint, err error) {
	if err := p.rings.loading.take(p.wait); err != nil {
		return nil, err
	}
	defer p.rings.loading.free()
	name, tries := template{}.named(label, id), 0
	err = p.recovery.attempt(func() error {
		return p.on(p.sessions, 0, func(session uint, _ uint64) (err error) {
			omitted, err = leavingOut(optionals(), func(omit []uint) error {
				if tries++; tries > 1 {
					// A failed try may have made the key all the same: it must not be there twice.
					if err := p.destroyNamed(session, label, id); err != nil {
						return err
					}
				}
				handles, err := op(session, name, omit)
				if err == nil {
					err = p.identified(session, id, handles)
				}
				return err
			}, func() error { return p.recovery.test.run(session) })
			return err
		})
	}, nil)
	return omitted, err
}

// identified removes a new key whose CKA_ID the module does not tell: it would be taken for one
// that another program made.
func (p *provisioner) identified(session uint, id []byte, handles []uint) error {
	for _, h := range handles {
		told, err := p.attribute(session, h, pkcs11.CKA_ID)
		if err != nil {
			return err
		}
		if bytes.Equal(told, id) {
			continue
		}
		err = &Error{Function: "C_GetAttributeValue", garbage: fmt.Sprintf("the CKA_ID %x for a new key with %x", told, id)}
		for _, h := range handles {
			if left := p.destroy(session, h); left != nil {
				return fmt.Errorf("%w; the key could not be removed: %w", err, left)
			}
		}
		return fmt.Errorf("%w; the key is removed, since its versions could not be told apart", err)
	}
	return nil
}

// announce finds the key that was just made, proves it, and looks for others of
// its version.
func (p *provisioner) announce(label string, number uint32, id []byte) (v version, err error) {
	err = p.rings.scan(func(session uint, epoch uint64) error {
		now, err := p.lifeOf(epoch)
		if err != nil {
			return err
		}
		all, err := p.inspector.labelled(session, label)
		if err != nil {
			return err
		}
		found := false
		for _, e := range all {
			switch {
			case bytes.Equal(e.id, id):
				if v, err = p.rings.admit(session, e, nil); err != nil {
					return err
				}
				v.life, found = now, true
			case e.Version == number:
				return errTwins
			}
		}
		if !found {
			return fmt.Errorf("hsm: key %q version %d does not exist: %w", label, number, keystore.ErrNotFound)
		}
		return nil
	})
	return v, err
}

// takeBack destroys what this program made and nobody was told of.
func (p *provisioner) takeBack(label string, id []byte) error {
	err := p.rings.scan(func(session uint, _ uint64) error { return p.destroyNamed(session, label, id) })
	if err != nil {
		return fmt.Errorf("hsm: a new key %q could not be removed, and has the CKA_ID %x: %w", label, id, err)
	}
	return nil
}

// purpose names an algorithm, where there is one.
func purpose(a keystore.Algorithm) string {
	if !a.Valid() {
		return "something else"
	}
	return a.String()
}

func (p *provisioner) nextVersion(label string, a keystore.Algorithm) (next uint32, err error) {
	err = p.rings.scan(func(session uint, _ uint64) error {
		next = 1
		all, err := p.inspector.labelled(session, label)
		if err != nil {
			return err
		}
		for _, e := range all {
			if e.Algorithm, err = p.inspector.algorithmOf(session, e); err != nil {
				return err
			}
			if names := e.untold([]string{"unknown"}); !e.Algorithm.Valid() && len(names) > 0 {
				return fmt.Errorf("hsm: the purpose of the key %q is not known, since the module does not report %s as it should: %w", label, strings.Join(names, ", "), keystore.ErrUnavailable)
			}
			if e.Algorithm != a {
				return fmt.Errorf("hsm: %q is a key for %s: %w; take another label, or destroy it if nothing needs it", label, purpose(e.Algorithm), keystore.ErrExists)
			}
			next = max(next, e.Version+1)
		}
		return nil
	})
	return next, err
}
