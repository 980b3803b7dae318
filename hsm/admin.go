package hsm

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Destroy removes one version of a provisioned key, or with version 0 all that has its
// label, with the public halves of pairs.
func (s *Store) Destroy(label string, version uint32) error {
	if s.isClosed() {
		return errClosed
	}
	if err := s.provisioner.mu.take(s.wait); err != nil {
		return err
	}
	defer s.provisioner.mu.free()
	defer s.rings.forgetLabel(label)
	unlock, err := s.provisioner.lockToken()
	if err != nil {
		return err
	}
	defer unlock()
	seen := false // so that one which a failing call destroyed all the same is not missed
	err = s.rings.scan(func(session uint, _ uint64) error {
		return s.provisioner.destroyVersion(session, label, version, &seen)
	})
	return s.recovery.explain(readOnly(err))
}

const mostRounds = 100

// destroyVersion destroys a version of a key, or with version 0 all, until none is found: a search
// may leave out objects.
func (p *provisioner) destroyVersion(session uint, label string, version uint32, seen *bool) error {
	versions := p.inspector.labelled
	if version == 0 {
		versions = p.inspector.withLabel
	}
	for range mostRounds {
		all, err := versions(session, label)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(e evidence) bool { return version != 0 && e.Version != version })
		switch {
		case len(all) == 0 && !*seen:
			return noVersion(label, version)
		case len(all) == 0:
			return nil
		}
		*seen = true
		for _, e := range all {
			if err := p.destroyNamed(session, label, e.id); err != nil {
				return err
			}
		}
	}
	return &Error{Function: "C_FindObjects", garbage: "keys that were destroyed"}
}

// List returns what the token reports about every secret and private key in it, with the
// weaknesses that were found. A key of other software that shares a key's label is noted at
// that key.
func (s *Store) List() ([]keystore.Info, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	var all []keystore.Info
	err := s.rings.scan(func(session uint, _ uint64) error {
		all = []keystore.Info{}
		keys, err := s.inspector.keys(session, template{}.flag(pkcs11.CKA_TOKEN, true))
		if err == nil {
			err = s.checkLogin(session) // without it only some are shown
		}
		if err == nil {
			keys, err = s.inspector.versionsOf(session, keys)
		}
		if err != nil {
			return err
		}
		for _, e := range keys {
			if err := s.inspector.judge(session, &e); err != nil {
				return err
			}
			notes, err := s.inspector.notes(session, e)
			if err != nil {
				return err
			}
			e.Notes = append(e.Notes, notes...)
			all = append(all, e.Info)
		}
		return nil
	})
	if err != nil {
		return nil, s.recovery.explain(err)
	}
	slices.SortStableFunc(all, func(a, b keystore.Info) int {
		return cmp.Or(strings.Compare(a.Label, b.Label), cmp.Compare(b.Version, a.Version))
	})
	return all, nil
}

// destroyNamed destroys the objects with a label and an identifier, public halves
// first: as long as the key itself is there, it can be found again.
func (p *provisioner) destroyNamed(session uint, label string, id []byte) error {
	t := template{}.flag(pkcs11.CKA_TOKEN, true).add(pkcs11.CKA_LABEL, []byte(label)).add(pkcs11.CKA_ID, id)
	found, err := p.find(session, t)
	if err == nil && len(found) == 0 {
		err = p.checkLogin(session)
	}
	if err != nil {
		return err
	}
	var public, keys []uint
	for _, h := range found {
		all, err := p.attributes(session, h, pkcs11.CKA_CLASS, pkcs11.CKA_LABEL, pkcs11.CKA_ID)
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
		if err := p.destroy(session, h); err != nil {
			return err
		}
	}
	left, err := p.find(session, t)
	if err == nil && len(left) > len(found)-len(public)-len(keys) {
		err = &Error{Function: "C_DestroyObject", garbage: "CKR_OK, and the object is still there"}
	}
	return err
}
