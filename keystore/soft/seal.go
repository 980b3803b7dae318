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
	switch a {
	case keystore.AES128CBC, keystore.AES256CBC, keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128:
		return keystore.RoleSealSession, nil
	case keystore.AESWrap128:
		return keystore.RoleSealWrapping, nil
	case keystore.AESUnwrap128, keystore.AESReveal128:
		return "", fmt.Errorf("soft: seal %v: an unwrapping key could be unsealed elsewhere and open recorded traffic, it has to be provisioned: %w", a, errors.ErrUnsupported)
	}
	return "", fmt.Errorf("soft: seal %v: a private key could be unsealed elsewhere and open recorded traffic or sign in its owner's name, it has to be provisioned: %w", a, errors.ErrUnsupported)
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
	newest, err := newest(s, label)
	if err != nil {
		return newest, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.rings[label] {
		if r.Version <= cmp.Or(s.chosen[label], math.MaxUint32) {
			return r, nil
		}
	}
	return newest, nil
}

// Unseal makes a locked key of what Seal returned.
func (s *Store) Unseal(a keystore.Algorithm, blob, context []byte) (keystore.Key, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		return nil, err
	}
	authentic, err := authentic(s, sealed, context)
	if err != nil {
		return nil, err
	}
	if sealed.Algorithm != a || !authentic {
		return nil, fmt.Errorf("soft: unseal %v: %w", a, keystore.ErrForeign)
	}
	role, err := kekOf(a)
	if err != nil {
		return nil, fmt.Errorf("soft: unseal %v: %w", a, keystore.ErrForeign)
	}
	raw, err := openSealed(s, role.Label(s.prefix), sealed)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	m, err := secret(a, raw)
	if err != nil {
		return nil, fmt.Errorf("soft: unseal %v: %w", a, keystore.ErrForeign)
	}
	return s.adopt(a, m, true)
}

// authentic tries every version of the MAC key: a blob names only the version
// of the key that wraps.
func authentic(s *Store, sealed keystore.Sealed, context []byte) (bool, error) {
	label := keystore.RoleSealMAC.Label(s.prefix)
	if _, err := newest(s, label); err != nil {
		return false, err
	}
	data := sealed.Authenticated(context)
	for _, r := range s.ring(label) {
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

// openSealed unwraps with the version that a blob names. One that is retired makes
// the blob foreign; a key without any version is missing.
func openSealed(s *Store, label string, sealed keystore.Sealed) ([]byte, error) {
	if _, err := newest(s, label); err != nil {
		return nil, err
	}
	for _, r := range s.ring(label) {
		if r.Version != sealed.KEKVersion {
			continue
		}
		raw, err := r.unwrap(sealed.Wrapped)
		if err == nil || !errors.Is(err, keystore.ErrBadData) {
			return raw, err
		}
	}
	return nil, fmt.Errorf("soft: unseal with %s version %d: %w", label, sealed.KEKVersion, keystore.ErrForeign)
}

// ring returns the versions of a provisioned key; it is never changed in place.
func (s *Store) ring(label string) []record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rings[label]
}

func newest(s *Store, label string) (record, error) {
	if err := s.open(); err != nil {
		return record{}, err
	}
	ring := s.ring(label)
	if len(ring) == 0 {
		return record{}, fmt.Errorf("soft: sealing key %s: %w", label, keystore.ErrNotFound)
	}
	return ring[0], nil
}
