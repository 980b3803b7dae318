package split

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Lookup finds every version of a provisioned key in the device, newest first.
func (s *Store) Lookup(label string) (ring []keystore.Version, err error) {
	var at string
	err = s.eitherPlace(label, missing(label), func(place string) error {
		at = place
		ring, err = s.device.Lookup(place)
		return err
	})
	if err != nil {
		return nil, err
	}
	ring = slices.Clone(ring)
	for i, v := range ring {
		if ring[i].Key, err = s.shown(at, v.Key); err != nil {
			return nil, err
		}
	}
	return ring, nil
}

// eitherPlace does what is to be done with a key under its label in the device or, if it is not
// there, under the label with the mark. The first is left out for a sealing key, of which the
// device may have its own. If it is in neither, no error names the label with the mark, which
// its user does not know.
func (s *Store) eitherPlace(label string, absent error, do func(place string) error) error {
	if !s.seals(label) {
		if absent = do(label); !errors.Is(absent, keystore.ErrNotFound) {
			return absent
		}
	}
	if err := do(mark + label); !errors.Is(err, keystore.ErrNotFound) {
		return err
	}
	return absent
}

func missing(label string) error {
	return fmt.Errorf("split: key %q: %w", label, keystore.ErrNotFound)
}

// shown is a key of the device under a label as it is used here.
func (s *Store) shown(at string, inner keystore.Key) (keystore.Key, error) {
	if !strings.HasPrefix(at, mark) {
		if a := inner.Algorithm(); stored(a) != a {
			return nil, fmt.Errorf("split: %q unwraps session keys into the device, and they are in memory here: %w; make another key under a new label", at, keystore.ErrWrongKey)
		}
		return s.typed(at, inner.Algorithm(), inner)
	}
	label, a, err := s.meant(place{at, inner.Algorithm()})
	if err != nil {
		return nil, err
	}
	return s.typed(label, a, inner)
}

// Create makes the next version of a provisioned key in the device.
func (s *Store) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	return s.make(label, a, s.device.Create)
}

// Provision makes the next version of a provisioned key in the device from bytes that this
// process has. The caller keeps raw and wipes it.
func (s *Store) Provision(label string, a keystore.Algorithm, raw []byte) (keystore.Version, error) {
	device, ok := s.device.(keystore.Provisioner)
	if !ok || a.Sealing() {
		return keystore.Version{}, fmt.Errorf("split: provision %v from bytes: %w", a, errors.ErrUnsupported)
	}
	return s.make(label, a, func(at string, stored keystore.Algorithm) (keystore.Version, error) {
		return device.Provision(at, stored, raw)
	})
}

// make makes a key by a function of the device.
func (s *Store) make(label string, a keystore.Algorithm, create func(string, keystore.Algorithm) (keystore.Version, error)) (none keystore.Version, err error) {
	if label == "" || strings.HasPrefix(label, mark) || !keystore.LabelFits(s.prefix, label, a) {
		return none, fmt.Errorf("split: a %v key cannot have the label %q: %w", a, label, keystore.ErrWrongKey)
	}
	at := placeOf(label, a)
	if other := otherPlace(label, at); !a.Sealing() {
		if _, err := s.device.Lookup(other); err == nil || !errors.Is(err, keystore.ErrNotFound) {
			return none, cmp.Or(err, fmt.Errorf("split: %q is a key for something else: %w; take another label, or destroy it if nothing needs it", label, keystore.ErrExists))
		}
	}
	v, err := create(at.label, at.algorithm)
	if err != nil {
		return none, err
	}
	s.sealer.forget(label)
	v.Key, err = s.shown(at.label, v.Key)
	return v, err
}

// otherPlace is the label under which a key would be that is for something else.
func otherPlace(label string, at place) string {
	if at.label == label {
		return mark + label
	}
	return label
}

// Destroy removes one version of a provisioned key, or with version 0 all, from the device.
func (s *Store) Destroy(label string, version uint32) error {
	defer s.sealer.forget(label)
	absent := fmt.Errorf("split: %w", keystore.NoVersion(label, version))
	return s.eitherPlace(label, absent, func(place string) error { return s.device.Destroy(place, version) })
}

// List describes every provisioned key in the device, except sealing keys of the device
// itself, which are not used.
func (s *Store) List() ([]keystore.Info, error) {
	all, err := s.device.List()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(k keystore.Info) bool { return s.seals(k.Label) })
	for i := range all {
		k := &all[i]
		if !strings.HasPrefix(k.Label, mark) {
			continue
		}
		if label, a, err := s.meant(place{k.Label, k.Algorithm}); err == nil {
			k.Stored = fmt.Sprintf("%s, %v", k.Label, k.Algorithm)
			k.Label, k.Algorithm = label, a
			k.Reseals = a.SealsKeys()
			k.Trusted = k.Reseals
		}
	}
	slices.SortStableFunc(all, keystore.Info.Compare)
	return all, nil
}

// Refresh makes the store look up the keys with these labels, or all keys, again at their
// next use.
func (s *Store) Refresh(labels ...string) error { return s.sealer.refresh(labels...) }

// SealWith makes Seal use that version of a sealing key or, if it does not exist, the next
// lower one; zero means the newest.
func (s *Store) SealWith(label string, version uint32) error {
	s.sealer.mu.Lock()
	defer s.sealer.mu.Unlock()
	s.sealer.chosen[label] = version
	return nil
}
