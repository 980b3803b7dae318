package split

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A sealer seals by keys of the device.
type sealer struct {
	device Device
	prefix string
	random io.Reader // or nil

	mu      sync.Mutex
	rings   map[string][]sealing // the sealing keys that were looked up, by label
	changes uint64               // of what may be looked up
	chosen  map[string]uint32    // versions that seal; zero or none means the newest
}

// A sealing key is one version of a key that seals, in the device. One of the two is set.
type sealing struct {
	version uint32
	cipher  keystore.Cipher
	mac     keystore.MAC
}

// sealsNow returns the version of a sealing key that seals, the newest or the one that was
// chosen, and of the MAC key. A version that the MAC key does not have yet cannot seal: a rotation
// is under way, or was cut off.
func (s *sealer) sealsNow(role keystore.Role) (kek, mac sealing, err error) {
	label, macLabel := role.Label(s.prefix), keystore.RoleSealMAC.Label(s.prefix)
	keks, err := s.sealingRing(label)
	if err != nil {
		return kek, mac, err
	}
	macs, err := s.sealingRing(macLabel)
	if err != nil {
		return kek, mac, err
	}
	s.mu.Lock()
	most := cmp.Or(s.chosen[label], math.MaxUint32)
	s.mu.Unlock()
	for _, kek := range keks {
		if mac, ok := find(macs, kek.version); ok && kek.version <= most {
			return kek, mac, nil
		}
	}
	return kek, mac, fmt.Errorf("split: %s and %s have no version in common: %w", label, macLabel, keystore.ErrNotFound)
}

// sealedWith returns one version of a sealing key. An unknown one may have been made
// by another program since.
func (s *sealer) sealedWith(role keystore.Role, version uint32) (sealing, error) {
	label := role.Label(s.prefix)
	ring, err := s.sealingRing(label)
	if err == nil && version > ring[0].version {
		if err = s.refresh(label); err == nil {
			ring, err = s.sealingRing(label)
		}
	}
	if err != nil {
		return sealing{}, err
	}
	if k, ok := find(ring, version); ok {
		return k, nil
	}
	return sealing{}, fmt.Errorf("split: %s has no version %d: %w", label, version, keystore.ErrForeign)
}

func find(ring []sealing, version uint32) (sealing, bool) {
	for _, k := range ring {
		if k.version == version {
			return k, true
		}
	}
	return sealing{}, false
}

// sealingRing returns the versions of a sealing key, newest first.
func (s *sealer) sealingRing(label string) ([]sealing, error) {
	s.mu.Lock()
	ring, changes := s.rings[label], s.changes
	s.mu.Unlock()
	if len(ring) > 0 {
		return ring, nil
	}
	versions, err := s.device.Lookup(mark + label)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, missing(label)
	}
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		k := sealing{version: v.Number}
		if label == keystore.RoleSealMAC.Label(s.prefix) {
			k.mac, err = keystore.As[keystore.MAC](mark+label, v)
		} else {
			k.cipher, err = keystore.As[keystore.Cipher](mark+label, v)
		}
		if err != nil {
			return nil, err
		}
		ring = append(ring, k)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == changes { // else there may be more versions by now
		s.rings[label] = ring
	}
	return ring, nil
}

// refresh has the keys with these labels, or all, looked for again when they are used next.
func (s *sealer) refresh(labels ...string) error {
	s.forget(labels...)
	device, ok := s.device.(keystore.Changing)
	if !ok {
		return nil
	}
	all := slices.Clone(labels)
	for _, label := range labels {
		all = append(all, mark+label)
	}
	return device.Refresh(all...)
}

// forget drops what is known of sealing keys, or of all without labels.
func (s *sealer) forget(labels ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	if len(labels) == 0 {
		clear(s.rings)
	}
	for _, label := range labels {
		delete(s.rings, label)
	}
}
