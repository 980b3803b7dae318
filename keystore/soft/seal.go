package soft

import (
	"cmp"
	"crypto/subtle"
	"errors"
	"fmt"
	"math"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// kekOf is the role of the sealing key that keeps keys of algorithm a.
func kekOf(a keystore.Algorithm) (keystore.Role, error) {
	if role := a.SealedBy(); role != "" {
		return role, nil
	}
	if a == keystore.AESUnwrap128 || a == keystore.AESReveal128 {
		return "", fmt.Errorf("soft: seal %v: an unwrapping key could be unsealed elsewhere to decrypt recorded traffic: provision it instead: %w", a, errors.ErrUnsupported)
	}
	return "", fmt.Errorf("soft: seal %v: a private key could be unsealed elsewhere to decrypt recorded traffic or sign in its owner's name: provision it instead: %w", a, errors.ErrUnsupported)
}

// Seal wraps k so that only this store can unseal it, and locks it.
func (s *Store) Seal(k keystore.Key, context []byte) ([]byte, error) {
	own, err := s.own(k)
	if err != nil {
		return nil, err
	}
	raw, err := own.leave(true)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return sealRaw(s, own.algorithm, raw, context)
}

func sealRaw(s *Store, a keystore.Algorithm, raw, context []byte) ([]byte, error) {
	role, err := kekOf(a)
	if err != nil {
		return nil, err
	}
	kek, err := sealer(s, role.Label(s.prefix))
	if err != nil {
		return nil, err
	}
	wrapped, err := kek.wrap(raw)
	if err != nil {
		return nil, err
	}
	sealed := keystore.Sealed{Algorithm: a, KEKVersion: kek.Version, Wrapped: wrapped}
	tagger, err := sealer(s, keystore.RoleSealMAC.Label(s.prefix))
	if err != nil {
		return nil, err
	}
	if sealed.Tag, err = tagger.tag(sealed.Authenticated(context)); err != nil {
		return nil, err
	}
	return sealed.Bytes(), nil
}

// sealer returns the version of a sealing key that seals: the newest, or the chosen one.
func sealer(s *Store, label string) (record, error) {
	ring, err := s.existing(label)
	if err != nil {
		return record{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range ring {
		if r.Version <= cmp.Or(s.chosen[label], math.MaxUint32) {
			return r, nil
		}
	}
	return ring[0], nil
}

// Unseal makes a locked key from what Seal returned.
func (s *Store) Unseal(a keystore.Algorithm, blob, context []byte) (keystore.Key, error) {
	sealed, raw, err := openBlob(s, blob, context)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	m, err := secret(a, raw)
	if err != nil || sealed.Algorithm != a {
		return nil, fmt.Errorf("soft: unseal %v: %w", a, keystore.ErrForeign)
	}
	return s.adopt(a, m, true)
}

// openBlob returns what is in a blob of Seal, for the caller to wipe.
func openBlob(s *Store, blob, context []byte) (sealed keystore.Sealed, raw []byte, err error) {
	if err := s.open(); err != nil {
		return sealed, nil, err
	}
	if sealed, err = keystore.ParseSealed(blob); err != nil {
		return sealed, nil, err
	}
	ring, err := s.existing(keystore.RoleSealMAC.Label(s.prefix))
	if err != nil {
		return sealed, nil, err
	}
	if sealed.KEKVersion > ring[0].Version { // another process may have made a newer one
		if err = s.Refresh(); err == nil {
			ring, err = s.existing(keystore.RoleSealMAC.Label(s.prefix))
		}
		if err != nil {
			return sealed, nil, err
		}
	}
	genuine, err := authentic(ring, sealed, context)
	if err != nil {
		return sealed, nil, err
	}
	role, err := kekOf(sealed.Algorithm)
	if err != nil || !genuine {
		return sealed, nil, fmt.Errorf("soft: unseal %v: %w", sealed.Algorithm, keystore.ErrForeign)
	}
	if ring, err = s.existing(role.Label(s.prefix)); err != nil {
		return sealed, nil, err
	}
	raw, err = openSealed(ring, sealed)
	return sealed, raw, err
}

// authentic tries every version of the MAC key: a blob names only the version
// of the key that wraps.
func authentic(ring []record, sealed keystore.Sealed, context []byte) (bool, error) {
	data := sealed.Authenticated(context)
	for _, r := range ring {
		tag, err := r.tag(data)
		if err != nil {
			return false, err
		}
		if subtle.ConstantTimeCompare(tag, sealed.Tag) == 1 {
			return true, nil
		}
	}
	return false, nil
}

// openSealed unwraps with the version that a blob names. If that is retired, the
// blob is foreign.
func openSealed(ring []record, sealed keystore.Sealed) ([]byte, error) {
	for _, r := range ring {
		if r.Version != sealed.KEKVersion {
			continue
		}
		raw, err := r.unwrap(sealed.Wrapped)
		if err == nil || !errors.Is(err, keystore.ErrBadData) {
			return raw, err
		}
	}
	return nil, fmt.Errorf("soft: unseal with %s version %d: %w", ring[0].Label, sealed.KEKVersion, keystore.ErrForeign)
}

// ring returns the versions of a provisioned key; it is never changed in place.
func (s *Store) ring(label string) []record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rings[label]
}

// existing is ring, of a sealing key that must be there.
func (s *Store) existing(label string) ([]record, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	ring := s.ring(label)
	if len(ring) == 0 {
		return nil, fmt.Errorf("soft: sealing key %s: %w", label, keystore.ErrNotFound)
	}
	return ring, nil
}
