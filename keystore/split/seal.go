package split

import (
	"cmp"
	"crypto/aes"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/msl-hsm/msl-hsm/internal/cbc"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// formData is the form of what is sealed here, by which a store that wraps in its device
// knows that it did not seal it: an initialization vector, and the key in AES-256-CBC.
const formData = 0x80

// A sealing key is one version of a key that seals, in the device. One of the two is set.
type sealing struct {
	version uint32
	cipher  keystore.Cipher
	mac     keystore.MAC
}

// sealedBy is the role of the key that seals keys of algorithm a.
func sealedBy(a keystore.Algorithm) (keystore.Role, error) {
	switch a {
	case keystore.AES128CBC, keystore.AES256CBC, keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128:
		return keystore.RoleSealSession, nil
	case keystore.AESWrap128:
		return keystore.RoleSealWrapping, nil
	}
	return "", fmt.Errorf("split: seal %v: unsealed elsewhere, it would open recorded traffic or sign in its owner's name: provision it: %w", a, errors.ErrUnsupported)
}

// Seal encrypts and authenticates a session key by keys of the device, and locks it.
func (s *Store) Seal(k keystore.Key, context []byte) (blob []byte, err error) {
	err = s.memory.Leave(k, true, func(raw []byte) error {
		blob, err = s.seal(k.Algorithm(), raw, context)
		return err
	})
	return blob, err
}

func (s *Store) seal(a keystore.Algorithm, raw, context []byte) ([]byte, error) {
	role, err := sealedBy(a)
	if err != nil {
		return nil, err
	}
	kek, mac, err := s.sealsNow(role)
	if err != nil {
		return nil, err
	}
	wrapped := make([]byte, aes.BlockSize, aes.BlockSize+cbc.Padded(len(raw)))
	if _, err := io.ReadFull(s.source(), wrapped); err != nil {
		return nil, fmt.Errorf("split: draw an initialization vector: %w", err)
	}
	if wrapped, err = keystore.AppendEncrypt(kek.cipher, wrapped, wrapped[:aes.BlockSize:aes.BlockSize], raw); err != nil {
		return nil, err
	}
	sealed := keystore.Sealed{Algorithm: a, KEKVersion: kek.version, Form: formData, Wrapped: wrapped}
	if sealed.Tag, err = mac.mac.Sum(sealed.Authenticated(context)); err != nil {
		return nil, err
	}
	return sealed.Bytes(), nil
}

func (s *Store) source() io.Reader {
	if s.random == nil {
		return rand.Reader
	}
	return s.random
}

// Unseal has the device verify a blob, and only then decrypt it, to a locked key.
func (s *Store) Unseal(a keystore.Algorithm, blob, context []byte) (k keystore.Key, err error) {
	err = s.open(a, blob, context, func(raw []byte) error {
		k, err = s.memory.ImportLocked(a, raw)
		return err
	})
	return k, err
}

// Reseal seals what is sealed once more, with the version that seals now.
func (s *Store) Reseal(blob, context []byte) (again []byte, err error) {
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		return nil, err
	}
	err = s.open(sealed.Algorithm, blob, context, func(raw []byte) error {
		again, err = s.seal(sealed.Algorithm, raw, context)
		return err
	})
	return again, err
}

// open calls use with the key of algorithm a in a blob, in locked memory.
func (s *Store) open(a keystore.Algorithm, blob, context []byte, use func(raw []byte) error) error {
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		return err
	}
	role, err := sealedBy(a)
	if err != nil || sealed.Algorithm != a || sealed.Form != formData || sealed.KEKVersion == 0 || len(sealed.Wrapped) != aes.BlockSize+cbc.Padded(a.Size()) {
		return foreign(a)
	}
	mac, err := s.sealedWith(keystore.RoleSealMAC, sealed.KEKVersion)
	if err != nil {
		return err
	}
	tag, err := mac.mac.Sum(sealed.Authenticated(context))
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(tag, sealed.Tag) != 1 {
		return foreign(a)
	}
	kek, err := s.sealedWith(role, sealed.KEKVersion)
	if err != nil {
		return err
	}
	raw := lockedmem.New(cbc.Padded(a.Size()))
	defer raw.Close()
	plain, err := keystore.AppendDecrypt(kek.cipher, raw.Bytes()[:0], sealed.Wrapped[:aes.BlockSize], sealed.Wrapped[aes.BlockSize:])
	defer clear(plain) // where the key has no room of the caller
	if err != nil {
		return err
	}
	return use(plain)
}

func foreign(a keystore.Algorithm) error {
	return fmt.Errorf("split: unseal %v: %w", a, keystore.ErrForeign)
}

// sealsNow returns the version of a sealing key that seals, the newest or the one that was
// chosen, and of the MAC key. One that the MAC key does not have yet cannot: a rotation is
// under way, or was cut off.
func (s *Store) sealsNow(role keystore.Role) (kek, mac sealing, err error) {
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

// sealedWith returns one version of a sealing key. One that is not known may have been made
// by another program since.
func (s *Store) sealedWith(role keystore.Role, version uint32) (sealing, error) {
	label := role.Label(s.prefix)
	ring, err := s.sealingRing(label)
	if err == nil && version > ring[0].version {
		if err = s.Refresh(label); err == nil {
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
func (s *Store) sealingRing(label string) ([]sealing, error) {
	s.mu.Lock()
	ring, changes := s.rings[label], s.changes
	s.mu.Unlock()
	if len(ring) > 0 {
		return ring, nil
	}
	versions, err := s.device.Lookup(mark + label)
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
