package soft

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Refresh reads the file again, if there is one and another process changed it. Handles on
// keys that are not in it any more give [keystore.ErrNotFound]. A file with another passphrase or cost is
// [keystore.ErrBusy]: it has to be opened again.
func (s *Store) Refresh(...string) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	if err := s.open(); err != nil || s.file == nil {
		return err
	}
	found, err := s.file.changed()
	if err != nil || found == nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for label, ring := range s.rings {
		for _, old := range ring {
			keep(found[label], old)
		}
	}
	s.rings = found
	return nil
}

// keep has a ring go on with the key of a version that it had before, or wipes that.
func keep(ring []record, old record) {
	i := slices.IndexFunc(ring, func(r record) bool { return r.Version == old.Version && r.sameAs(old) })
	if i < 0 {
		old.m.wipe()
		return
	}
	ring[i].m.wipe()
	ring[i].m = old.m
}

// sameAs reports whether two records hold the same key.
func (r record) sameAs(other record) bool {
	one, errOne := r.stored()
	two, errTwo := other.stored()
	defer clear(one.Secret)
	defer clear(one.PKCS8)
	defer clear(two.Secret)
	defer clear(two.PKCS8)
	return errOne == nil && errTwo == nil && bytes.Equal(one.Secret, two.Secret) && bytes.Equal(one.PKCS8, two.PKCS8)
}

// changed returns what is in the file, or nil if that was not changed by others.
func (f *file) changed() (map[string][]record, error) {
	data, err := read(f.path)
	if err != nil {
		return nil, err
	}
	sum, err := check(f.path, data)
	if err != nil || sum == f.sum {
		return nil, err
	}
	h, begin, records, err := split(f.path, data[:len(data)-sha256.Size])
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(h.Salt, f.lock.Salt) || h.Cost != f.lock.Cost || h.Cipher != f.lock.Cipher {
		return nil, fmt.Errorf("soft: %s has another passphrase or cost, open it again: %w", f.path, keystore.ErrBusy)
	}
	found, err := f.decrypt(begin, records)
	if err == nil {
		f.sum = sum
	}
	return found, err
}

// SealWith makes Seal use that version of a sealing key or, if it does not exist, the next
// lower one; zero means the newest.
func (s *Store) SealWith(label string, version uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chosen == nil {
		s.chosen = map[string]uint32{}
	}
	s.chosen[label] = version
	return nil
}
