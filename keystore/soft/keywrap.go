package soft

import (
	"crypto/cipher"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/keywrap"
	"github.com/msl-hsm/msl-hsm/keystore"
)

type wrapKey struct{ *key }

// Wrap wraps a key of the same store with AES Key Wrap.
func (k wrapKey) Wrap(victim keystore.Key) ([]byte, error) {
	if k.closed.Load() {
		return nil, k.errClosed()
	}
	raw, err := k.store.take(victim)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	return wrap(m.block, raw)
}

// WrapData wraps bytes with AES Key Wrap.
func (k wrapKey) WrapData(raw []byte) ([]byte, error) {
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	return wrap(m.block, raw)
}

type revealKey struct{ *key }

// Reveal undoes AES Key Wrap.
func (k revealKey) Reveal(wrapped []byte) ([]byte, error) {
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	raw, err := unwrap(m.block, wrapped)
	if err != nil {
		return nil, fmt.Errorf("soft: reveal: %w", err)
	}
	return raw, nil
}

type unwrapKey struct{ *key }

// Unwrap makes a session key of what a peer wrapped with AES Key Wrap.
func (k unwrapKey) Unwrap(a keystore.Algorithm, wrapped []byte) (keystore.Key, error) {
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	raw, err := unwrap(m.block, wrapped)
	m.mu.RUnlock()
	return k.unwrapped(a, raw, err)
}

// unwrapped makes a session key of raw, unless unwrapping failed with err.
func (k *key) unwrapped(a keystore.Algorithm, raw []byte, err error) (keystore.Key, error) {
	defer clear(raw)
	if !a.Secret() || a.Sealing() || a == keystore.AESReveal128 {
		return nil, fmt.Errorf("soft: unwrap %v: %w", a, errors.ErrUnsupported)
	}
	if err != nil {
		return nil, fmt.Errorf("soft: unwrap %v: %w", a, keystore.ErrBadData)
	}
	m, err := secret(a, raw)
	if err != nil {
		return nil, err
	}
	return k.store.adopt(a, m, k.provisioned)
}

func wrap(block cipher.Block, data []byte) ([]byte, error) {
	if !keywrap.Fits(len(data)) {
		return nil, fmt.Errorf("soft: wrap %d bytes: %w", len(data), keystore.ErrBadData)
	}
	return keywrap.Wrap(data, func(dst, src []byte) error {
		block.Encrypt(dst, src)
		return nil
	})
}

func unwrap(block cipher.Block, wrapped []byte) ([]byte, error) {
	raw, ok, err := keywrap.Unwrap(wrapped, func(dst, src []byte) error {
		block.Decrypt(dst, src)
		return nil
	})
	if err == nil && !ok {
		err = keystore.ErrBadData
	}
	return raw, err
}
