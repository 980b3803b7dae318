package split

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// An inDevice is a key of the device that this package gives other methods.
type inDevice interface{ in() *Store }

// A held key is a provisioned key, whose inner key does the work in the device.
type held struct {
	keystore.Key
	store     *Store
	algorithm keystore.Algorithm
}

// Algorithm returns what the key is for.
func (k held) Algorithm() keystore.Algorithm { return k.algorithm }

func (k held) in() *Store { return k.store }

// typed gives a provisioned key, which is in the device, the methods of algorithm a.
func (s *Store) typed(label string, a keystore.Algorithm, inner keystore.Key) (keystore.Key, error) {
	k := held{inner, s, a}
	switch a {
	case keystore.SealSession256, keystore.SealWrapping256, keystore.SealMAC256:
		return k, nil
	case keystore.AESWrap128:
		w, err := as[keystore.DataWrapper](label, inner)
		return wrapKey{k, w}, err
	case keystore.AESUnwrap128:
		r, err := as[keystore.Revealer](label, inner)
		return unwrapKey{k, r}, err
	case keystore.RSAUnwrap2048, keystore.RSAUnwrap3072, keystore.RSAUnwrap4096:
		d, err := as[crypto.Decrypter](label, inner)
		return pairKey{k, d}, err
	}
	return inner, nil
}

func as[K any](label string, k keystore.Key) (K, error) {
	return keystore.As[K](label, keystore.Version{Key: k})
}

// A wrapKey wraps in the device.
type wrapKey struct {
	held
	device keystore.DataWrapper
}

// Wrap wraps a session key, whose bytes the device is given.
func (k wrapKey) Wrap(other keystore.Key) (wrapped []byte, err error) {
	err = soft.Leave(k.store.memory, other, false, func(raw []byte) error {
		if !other.Algorithm().Secret() {
			return fmt.Errorf("split: a key pair is never wrapped: %w", keystore.ErrWrongKey)
		}
		wrapped, err = k.device.WrapData(raw)
		return err
	})
	return wrapped, err
}

// WrapData wraps bytes of this process.
func (k wrapKey) WrapData(raw []byte) ([]byte, error) { return k.device.WrapData(raw) }

// An unwrapKey has the device unwrap into this process.
type unwrapKey struct {
	held
	device keystore.Revealer
}

// Unwrap makes a locked session key of what a peer wrapped with AES Key Wrap.
func (k unwrapKey) Unwrap(a keystore.Algorithm, wrapped []byte) (keystore.Key, error) {
	return k.unwrapped(a, func() ([]byte, error) { return k.device.Reveal(wrapped) })
}

// A pairKey has the device decrypt into this process.
type pairKey struct {
	held
	device crypto.Decrypter
}

// Public returns the *rsa.PublicKey to wrap for.
func (k pairKey) Public() crypto.PublicKey { return k.device.Public() }

// Unwrap makes a locked session key of what a peer wrapped with RSA-OAEP and SHA-1.
func (k pairKey) Unwrap(a keystore.Algorithm, wrapped []byte) (keystore.Key, error) {
	return k.unwrapped(a, func() ([]byte, error) {
		return k.device.Decrypt(nil, wrapped, &rsa.OAEPOptions{Hash: crypto.SHA1})
	})
}

// unwrapped makes a locked session key of what the device gives.
func (k held) unwrapped(a keystore.Algorithm, open func() ([]byte, error)) (keystore.Key, error) {
	if !a.Secret() || a.Sealing() || a == keystore.AESReveal128 {
		return nil, fmt.Errorf("split: unwrap %v: %w", a, errors.ErrUnsupported)
	}
	plain, err := open()
	if err != nil {
		return nil, err
	}
	raw := lockedmem.Move(plain)
	defer raw.Close()
	return soft.ImportLocked(k.store.memory, a, raw.Bytes())
}
