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
