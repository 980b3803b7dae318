package split

import (
	"crypto/aes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/internal/cbc"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// formData is the form of what is sealed here, by which a store that wraps in its device
// knows that it did not seal it: an initialization vector, and the key in AES-256-CBC.
const formData = 0x80

// Sealed reports whether a blob has the form of what a store of this package seals. Its
// authenticity is not checked.
func Sealed(blob []byte) bool {
	sealed, err := keystore.ParseSealed(blob)
	return err == nil && sealed.Form == formData
}

// Seal encrypts and authenticates a session key by keys of the device, and locks it.
func (s *Store) Seal(k keystore.Key, context []byte) (blob []byte, err error) {
	err = soft.Leave(s.memory, k, true, func(raw []byte) error {
		blob, err = s.sealer.seal(k.Algorithm(), raw, context)
		return err
	})
	return blob, err
}

// seal seals raw. If another program destroyed the version that seals, it is another one.
func (s *sealer) seal(a keystore.Algorithm, raw, context []byte) ([]byte, error) {
	blob, err := s.sealKnown(a, raw, context)
	if !errors.Is(err, keystore.ErrNotFound) {
		return blob, err
	}
	if err := s.refresh(); err != nil {
		return nil, err
	}
	return s.sealKnown(a, raw, context)
}

// sealKnown is seal with the versions that are known.
func (s *sealer) sealKnown(a keystore.Algorithm, raw, context []byte) ([]byte, error) {
	role := a.SealedBy()
	if role == "" {
		return nil, fmt.Errorf("split: seal %v: unsealed elsewhere, it could decrypt recorded traffic or sign in its owner's name: provision it: %w", a, errors.ErrUnsupported)
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

func (s *sealer) source() io.Reader {
	if s.random == nil {
		return rand.Reader
	}
	return s.random
}

// Unseal has the device verify a blob, and only then decrypt it, to a locked key.
func (s *Store) Unseal(a keystore.Algorithm, blob, context []byte) (k keystore.Key, err error) {
	err = s.sealer.open(a, blob, context, func(raw []byte) error {
		k, err = soft.ImportLocked(s.memory, a, raw)
		return err
	})
	return k, err
}

// Reseal seals a sealed key again, with the version that seals now.
func (s *Store) Reseal(blob, context []byte) (again []byte, err error) {
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		return nil, err
	}
	err = s.sealer.open(sealed.Algorithm, blob, context, func(raw []byte) error {
		again, err = s.sealer.seal(sealed.Algorithm, raw, context)
		return err
	})
	return again, err
}

// open calls use with the key of algorithm a in a blob, in locked memory. A version that was
// known and is not there any more was destroyed by another program.
func (s *sealer) open(a keystore.Algorithm, blob, context []byte, use func(raw []byte) error) error {
	err := s.openKnown(a, blob, context, use)
	if !errors.Is(err, keystore.ErrNotFound) {
		return err
	}
	if err := s.refresh(); err != nil {
		return err
	}
	return s.openKnown(a, blob, context, use)
}

// openKnown is open with the versions that are known.
func (s *sealer) openKnown(a keystore.Algorithm, blob, context []byte, use func(raw []byte) error) error {
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		return err
	}
	role := a.SealedBy()
	if role == "" || sealed.Algorithm != a || sealed.Form != formData || sealed.KEKVersion == 0 || len(sealed.Wrapped) != aes.BlockSize+cbc.Padded(a.Size()) {
		return foreign(a)
	}
	mac, err := s.sealedWith(keystore.RoleSealMAC, sealed.KEKVersion)
	if err != nil {
		return err
	}
	_, err = keystore.Verify(mac.mac, nil, sealed.Authenticated(context), sealed.Tag)
	switch {
	case errors.Is(err, keystore.ErrBadTag):
		return foreign(a)
	case err != nil:
		return err
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
