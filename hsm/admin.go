package hsm

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// How often a version is made anew where other programs make one at the same time.
const maxTwins = 30

// errTwins says that another program made the same version at the same time.
var errTwins = errors.New("hsm: another program made that version at the same time")

// A maker makes a token object, with its mechanisms restricted or, for a module
// that does not know such restrictions, without.
type maker func(session uint, name template, restrict bool) (handle uint, err error)

// provision makes the next version of a key. Programs that do so at the same time
// cannot lock a token against each other. So each looks, after it has made its
// key, whether another one has the same version; who sees one takes his own back
// and makes a newer one. Of two that made the same version at the same time at
// least one sees the other's, so at most one is announced.
func (s *Store) provision(label string, a keystore.Algorithm, op maker) (keystore.Version, error) {
	var none keystore.Version
	if s.isClosed() {
		return none, errClosed
	}
	if label == "" || s.sealLabel(a) != label && (a.Sealing() || s.isSealLabel(label)) {
		return none, fmt.Errorf("hsm: no %v key goes by the label %q: %w", a, label, keystore.ErrWrongKey)
	}
	if err := s.admin.take(s.wait); err != nil {
		return none, err
	}
	defer s.admin.free()
	unlock, err := s.lockToken()
	if err != nil {
		return none, err
	}
	defer unlock()
	for range maxTwins {
		v, err := s.provisionOnce(label, a, op)
		if !errors.Is(err, errTwins) {
			return v, s.explain(err)
		}
		time.Sleep(time.Duration(1+rand.IntN(40)) * time.Millisecond)
	}
	return none, fmt.Errorf("hsm: other programs make versions of the key %q all the time: %w; try again", label, keystore.ErrBusy)
}

func (s *Store) provisionOnce(label string, a keystore.Algorithm, op maker) (keystore.Version, error) {
	var none keystore.Version
	number, err := s.nextVersion(label, a)
	if err != nil {
		return none, err
	}
	id := keyID(label, number)
	if err := s.make(label, id, op); err != nil {
		return none, errors.Join(err, s.takeBack(label, id))
	}
	v, err := s.announce(label, number, id)
	if err != nil {
		if left := s.takeBack(label, id); left != nil {
			return none, fmt.Errorf("%w, after %v", left, err)
		}
		return none, fmt.Errorf("the new key is removed: %w", err)
	}
	s.forgetLabel(label)
	_, _ = s.ring(label) // so that it is known to be there, should it vanish
	return keystore.Version{Number: number, Key: s.provisioned(v).typed()}, nil
}

// make makes a token object. A failure of the moment must not loosen the key: only
// a module that refuses restrictions of mechanisms twice gets a key without.
func (s *Store) make(label string, id []byte, op maker) error {
	if err := s.rings.loading.take(s.wait); err != nil {
		return err
	}
	defer s.rings.loading.free()
	name, tries := template{}.named(label, id), 0
	once := func(session uint, restrict bool) error {
		if tries++; tries > 1 {
			// What a try that failed made all the same must not be there twice.
			if err := s.destroyNamed(session, label, id); err != nil {
				return err
			}
		}
		_, err := op(session, name, restrict)
		return err
	}
	return s.attempt(func() error {
		return s.on(s.sessions, 0, func(session uint, _ uint64) error {
			err := once(session, true)
			if unrestricted(err) {
				err = once(session, true)
			}
			if unrestricted(err) {
				err = once(session, false)
			}
			return err
		})
	}, nil)
}

// unrestricted reports whether a module may not know restrictions of mechanisms.
func unrestricted(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Code == pkcs11.CKR_ATTRIBUTE_TYPE_INVALID || e.Code == pkcs11.CKR_TEMPLATE_INCONSISTENT)
}

// announce finds the key that was just made, proves it, and looks for others of
// its version.
func (s *Store) announce(label string, number uint32, id []byte) (v version, err error) {
	err = s.scan(func(session uint, epoch uint64) error {
		now, err := s.lifeOf(epoch)
		if err != nil {
			return err
		}
		all, err := s.labelled(session, label)
		if err != nil {
			return err
		}
		found := false
		for _, e := range all {
			switch {
			case bytes.Equal(e.id, id):
				if v, err = s.admit(session, e, nil); err != nil {
					return err
				}
				v.life, found = now, true
			case e.Version == number:
				return errTwins
			}
		}
		if !found {
			return fmt.Errorf("hsm: key %q version %d is not there: %w", label, number, keystore.ErrNotFound)
		}
		return nil
	})
	return v, err
}

// takeBack destroys what this program made and nobody was told of.
func (s *Store) takeBack(label string, id []byte) error {
	err := s.scan(func(session uint, _ uint64) error { return s.destroyNamed(session, label, id) })
	if err != nil {
		return fmt.Errorf("hsm: a new key %q could not be removed, and has the CKA_ID %x: %w", label, id, err)
	}
	return nil
}

// destroyNamed destroys the objects with a label and an identifier, public halves
// first: as long as the key itself is there, it can be found again.
func (s *Store) destroyNamed(session uint, label string, id []byte) error {
	t := template{}.flag(pkcs11.CKA_TOKEN, true).add(pkcs11.CKA_LABEL, []byte(label)).add(pkcs11.CKA_ID, id)
	found, err := s.find(session, t)
	if err != nil {
		return err
	}
	var public, keys []uint
	for _, h := range found {
		all, err := s.attributes(session, h, pkcs11.CKA_CLASS, pkcs11.CKA_LABEL, pkcs11.CKA_ID)
		if err != nil {
			return err
		}
		if string(all[pkcs11.CKA_LABEL]) != label || !bytes.Equal(all[pkcs11.CKA_ID], id) {
			return fmt.Errorf("hsm: C_FindObjects found the key %q with the CKA_ID %x, which was not asked for: %w", all[pkcs11.CKA_LABEL], all[pkcs11.CKA_ID], keystore.ErrUnavailable)
		}
		class, told := number(all[pkcs11.CKA_CLASS])
		switch {
		case !told:
			return noClass()
		case class == pkcs11.CKO_PUBLIC_KEY:
			public = append(public, h)
		case class == pkcs11.CKO_SECRET_KEY, class == pkcs11.CKO_PRIVATE_KEY:
			keys = append(keys, h)
		}
	}
	for _, h := range append(public, keys...) {
		if err := s.destroy(session, h); err != nil {
			return err
		}
	}
	return nil
}

// scan runs op, which reads token objects and may run again. For a moment it does
// so again too where objects come and go under it: other programs make them.
func (s *Store) scan(op func(session uint, epoch uint64) error) error {
	if err := s.rings.loading.take(s.wait); err != nil {
		return err
	}
	defer s.rings.loading.free()
	var err error
	for try := range 6 {
		err = s.attempt(func() error { return s.on(s.sessions, 0, op) }, nil)
		if c := classOf(err); err == nil || !errors.As(err, new(*Error)) || c != classOther && c != classObject {
			return err
		}
		time.Sleep(time.Duration(5+10*try+rand.IntN(10)) * time.Millisecond)
	}
	return err
}

func (s *Store) isSealLabel(label string) bool {
	for _, a := range []keystore.Algorithm{keystore.SealSession256, keystore.SealWrapping256, keystore.SealMAC256} {
		if s.sealLabel(a) == label {
			return true
		}
	}
	return false
}

func (s *Store) nextVersion(label string, a keystore.Algorithm) (next uint32, err error) {
	err = s.scan(func(session uint, _ uint64) error {
		next = 1
		all, err := s.labelled(session, label)
		if err != nil {
			return err
		}
		for _, e := range all {
			if e.Algorithm, err = s.algorithmOf(session, e); err != nil {
				return err
			}
			if e.Algorithm != a {
				return fmt.Errorf("hsm: %q is a key for %v: %w", label, e.Algorithm, keystore.ErrExists)
			}
			next = max(next, e.Version+1)
		}
		return nil
	})
	return next, err
}

// Destroy removes one version of a provisioned key, or with version 0 all, with
// the public halves of pairs.
func (s *Store) Destroy(label string, version uint32) error {
	if s.isClosed() {
		return errClosed
	}
	if err := s.admin.take(s.wait); err != nil {
		return err
	}
	defer s.admin.free()
	defer s.forgetLabel(label)
	unlock, err := s.lockToken()
	if err != nil {
		return err
	}
	defer unlock()
	seen := false
	err = s.scan(func(session uint, _ uint64) error {
		all, err := s.labelled(session, label)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(e evidence) bool { return version != 0 && e.Version != version })
		if len(all) == 0 && !seen {
			return noVersion(label, version)
		}
		seen = true // so that one which a failing call destroyed all the same is not missed
		for _, e := range all {
			if err := s.destroyNamed(session, label, e.id); err != nil {
				return err
			}
		}
		return nil
	})
	return s.explain(err)
}

// List tells what the token says of every secret and private key in it, and
// what it was caught at.
func (s *Store) List() ([]keystore.Info, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	var all []keystore.Info
	err := s.scan(func(session uint, _ uint64) error {
		all = []keystore.Info{}
		keys, err := s.keys(session, template{}.flag(pkcs11.CKA_TOKEN, true))
		if err != nil {
			return err
		}
		for _, e := range keys {
			if err := s.judge(session, &e); err != nil {
				return err
			}
			if e.Notes, err = s.notes(session, e); err != nil {
				return err
			}
			all = append(all, e.Info)
		}
		return nil
	})
	if err != nil {
		return nil, s.explain(err)
	}
	slices.SortStableFunc(all, func(a, b keystore.Info) int {
		return cmp.Or(strings.Compare(a.Label, b.Label), cmp.Compare(b.Version, a.Version))
	})
	return all, nil
}
