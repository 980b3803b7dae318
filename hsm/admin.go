package hsm

import (
	"bytes"
	"fmt"
	"slices"

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
	d := destruction{provisioner: &s.provisioner, label: label, version: version}
	err = s.rings.scan(func(session uint, _ uint64) error {
		if version == 0 {
			return d.all(session)
		}
		return d.one(session)
	})
	return s.recovery.explain(readOnly(err))
}

// A destruction is that of one version of a key, or of all with its label. It may run again after a
// failure, which destroyed some all the same.
type destruction struct {
	*provisioner
	label   string
	version uint32
	ids     [][]byte // of what was found first
}

const mostRounds = 100

// all destroys keys with the label until none is found: a search may leave out objects.
func (d *destruction) all(session uint) error {
	for range mostRounds {
		all, err := d.inspector.withLabel(session, d.label)
		if err == nil && len(all) == 0 && d.ids == nil {
			err = noVersion(d.label, d.version)
		}
		if err != nil || len(all) == 0 {
			return err
		}
		if err := d.destroy(session, all); err != nil {
			return err
		}
	}
	return &Error{Function: "C_FindObjects", garbage: "keys that were destroyed"}
}

// one destroys a version. It is not looked for again: a key of other software may count as
// version 1 from then on.
func (d *destruction) one(session uint) error {
	if d.ids != nil {
		return d.destroy(session, nil)
	}
	all, err := d.inspector.labelled(session, d.label)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(e evidence) bool { return e.Version != d.version })
	if len(all) == 0 {
		return noVersion(d.label, d.version)
	}
	return d.destroy(session, all)
}

// destroy destroys what was found, now or before.
func (d *destruction) destroy(session uint, found []evidence) error {
	for _, e := range found {
		d.ids = append(d.ids, e.id)
	}
	for _, id := range d.ids {
		if err := d.destroyNamed(session, d.label, id); err != nil {
			return err
		}
	}
	return nil
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
	slices.SortStableFunc(all, keystore.Info.Compare)
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
