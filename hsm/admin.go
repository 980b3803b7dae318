package hsm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// provision makes a token object, first with its mechanisms restricted, then,
// for a module that does not know such restrictions, without.
func (s *Store) provision(label string, a keystore.Algorithm, op func(session uint, name template, restrict bool) error) (keystore.Version, error) {
	var none keystore.Version
	if s.isClosed() {
		return none, errClosed
	}
	if label == "" || s.sealLabel(a) != label && (a.Sealing() || s.isSealLabel(label)) {
		return none, fmt.Errorf("hsm: no %v key goes by the label %q: %w", a, label, keystore.ErrWrongKey)
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	number, err := s.nextVersion(label, a)
	if err != nil {
		return none, err
	}
	if err := s.make(template{}.named(label, number), op); err != nil {
		return none, s.explain(err)
	}
	s.forgetLabel(label)
	v, err := s.findVersion(label, number)
	if err != nil {
		return none, errors.Join(fmt.Errorf("the new key is removed: %w", err), s.remove(label, number))
	}
	return keystore.Version{Number: number, Key: s.provisioned(v).typed()}, nil
}

func (s *Store) make(name template, op func(session uint, name template, restrict bool) error) error {
	s.rings.mu.Lock()
	defer s.rings.mu.Unlock()
	return s.attempt(func() error {
		return s.on(s.anchors, 0, func(session uint) error {
			err := op(session, name, true)
			var e *Error
			if errors.As(err, &e) && (e.Code == pkcs11.CKR_ATTRIBUTE_TYPE_INVALID || e.Code == pkcs11.CKR_TEMPLATE_INCONSISTENT) {
				err = op(session, name, false)
			}
			return err
		})
	})
}

func (s *Store) isSealLabel(label string) bool {
	for _, a := range []keystore.Algorithm{keystore.SealSession256, keystore.SealWrapping256, keystore.SealMAC256} {
		if s.sealLabel(a) == label {
			return true
		}
	}
	return false
}

func (s *Store) nextVersion(label string, a keystore.Algorithm) (uint32, error) {
	all, err := s.evidence(label)
	if err != nil {
		return 0, err
	}
	next := uint32(1)
	for _, e := range all {
		if e.Algorithm != a {
			return 0, fmt.Errorf("hsm: %q is a key for %v: %w", label, e.Algorithm, keystore.ErrExists)
		}
		next = max(next, e.Version+1)
	}
	return next, nil
}

// evidence examines the versions of one key, weak ones too.
func (s *Store) evidence(label string) (all []evidence, err error) {
	s.rings.mu.Lock()
	defer s.rings.mu.Unlock()
	err = s.attempt(func() error {
		return s.on(s.sessions, 0, func(session uint) (err error) {
			all, err = s.labelled(session, label)
			return err
		})
	})
	return all, s.explain(err)
}

// Destroy removes one version of a provisioned key, or with version 0 all, with
// the public halves of pairs.
func (s *Store) Destroy(label string, version uint32) error {
	if s.isClosed() {
		return errClosed
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	return s.explain(s.remove(label, version))
}

func (s *Store) remove(label string, version uint32) error {
	all, err := s.evidence(label)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(e evidence) bool { return version != 0 && e.Version != version })
	if len(all) == 0 {
		return noVersion(label, version)
	}
	defer s.forgetLabel(label)
	return s.on(s.sessions, 0, func(session uint) error {
		for _, e := range all {
			halves, err := s.publicObjects(session, label, e.id)
			if err != nil {
				return err
			}
			if e.Algorithm.Secret() {
				halves = nil
			}
			for _, h := range append(halves, e.handle) {
				if err := s.destroy(session, h); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// List tells what the token says of every secret and private key in it, and
// what it was caught at.
func (s *Store) List() ([]keystore.Info, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	s.rings.mu.Lock()
	defer s.rings.mu.Unlock()
	var all []keystore.Info
	err := s.attempt(func() error {
		all = []keystore.Info{}
		return s.on(s.sessions, 0, func(session uint) error {
			for _, class := range []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY} {
				handles, err := s.find(session, pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true))
				if err != nil {
					return err
				}
				for _, h := range handles {
					all = append(all, s.examine(session, h, class).Info)
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, s.explain(err)
	}
	slices.SortStableFunc(all, func(a, b keystore.Info) int {
		return cmp.Or(strings.Compare(a.Label, b.Label), cmp.Compare(b.Version, a.Version))
	})
	return all, nil
}

// InitToken makes a PKCS #11 token in a free slot of the module at path, with
// the PIN of the security officer and that of the user.
func InitToken(path, label string, soPIN, userPIN []byte) error {
	if len(label) == 0 || len(label) > 32 {
		return fmt.Errorf("hsm: token label %q has not 1 to 32 bytes", label)
	}
	mod, err := useModule(path)
	if err != nil {
		return err
	}
	return errors.Join(mod.initToken(label, soPIN, userPIN), mod.release())
}

// initToken holds the lock for writing, so that no two take the same slot.
func (m *module) initToken(label string, soPIN, userPIN []byte) error {
	m.drain.Lock()
	defer m.drain.Unlock()
	all, err := m.tokens(false)
	if err != nil {
		return err
	}
	for _, t := range all {
		if t.Label == label {
			return fmt.Errorf("hsm: PKCS #11 token %q: %w; choose another label", label, keystore.ErrExists)
		}
	}
	blank, err := m.tokens(true)
	if err != nil {
		return err
	}
	if len(blank) == 0 {
		return fmt.Errorf("hsm: %s has no slot for a new token: %w", m.path, keystore.ErrUnavailable)
	}
	for _, pin := range [][]byte{soPIN, userPIN} {
		// Before anything is made: a token without a PIN is of no use.
		if n := uint(len(pin)); n < blank[0].MinPinLen || n > blank[0].MaxPinLen {
			return fmt.Errorf("hsm: a PIN has not %d to %d bytes: %w", blank[0].MinPinLen, blank[0].MaxPinLen, keystore.ErrPIN)
		}
	}
	l := library{functions: m.table, miekg: m.miekg, calls: new(calls)}
	padded := [32]byte([]byte(fmt.Sprintf("%-32s", label)))
	if err := l.initToken(blank[0].slot, soPIN, padded); err != nil {
		return err
	}
	session, err := l.openSession(blank[0].slot)
	if err != nil {
		return err
	}
	// Nobody else can be logged in to a token that did not exist.
	defer l.closeSession(session)
	if err := l.login(session, pkcs11.CKU_SO, soPIN); err != nil {
		return err
	}
	return l.initPIN(session, userPIN)
}

// Tokens lists the initialised PKCS #11 tokens of the module at path.
func Tokens(path string) ([]URI, error) {
	mod, err := useModule(path)
	if err != nil {
		return nil, err
	}
	mod.drain.RLock()
	all, err := mod.tokens(false)
	mod.drain.RUnlock()
	var uris []URI
	for _, t := range all {
		uris = append(uris, URI{Token: t.Label, Serial: t.SerialNumber, Model: t.Model, Manufacturer: t.ManufacturerID, ModulePath: path})
	}
	return uris, errors.Join(err, mod.release())
}
