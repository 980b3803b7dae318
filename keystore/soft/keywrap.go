package soft

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

const (
	wrapIV    = 0xa6a6a6a6a6a6a6a6 // RFC 3394 section 2.2.3.1
	wrapChunk = 8
	wrapMin   = 2 * wrapChunk
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

// wrap is RFC 3394 section 2.2.1.
func wrap(block cipher.Block, data []byte) ([]byte, error) {
	if len(data) < wrapMin || len(data)%wrapChunk != 0 {
		return nil, fmt.Errorf("soft: wrap %d bytes: %w", len(data), keystore.ErrBadData)
	}
	out := make([]byte, wrapChunk+len(data))
	copy(out[wrapChunk:], data)
	n := len(data) / wrapChunk
	var b [2 * wrapChunk]byte
	binary.BigEndian.PutUint64(b[:], wrapIV)
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[wrapChunk:], out[i*wrapChunk:])
			block.Encrypt(b[:], b[:])
			copy(out[i*wrapChunk:], b[wrapChunk:])
			count(&b, n*j+i)
		}
	}
	copy(out, b[:wrapChunk])
	return out, nil
}

// unwrap is RFC 3394 section 2.2.2.
func unwrap(block cipher.Block, wrapped []byte) ([]byte, error) {
	if len(wrapped) < wrapChunk+wrapMin || len(wrapped)%wrapChunk != 0 {
		return nil, keystore.ErrBadData
	}
	out := make([]byte, len(wrapped)-wrapChunk)
	copy(out, wrapped[wrapChunk:])
	n := len(out) / wrapChunk
	var b [2 * wrapChunk]byte
	defer clear(b[:])
	copy(b[:], wrapped[:wrapChunk])
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			count(&b, n*j+i)
			copy(b[wrapChunk:], out[(i-1)*wrapChunk:])
			block.Decrypt(b[:], b[:])
			copy(out[(i-1)*wrapChunk:], b[wrapChunk:])
		}
	}
	iv := binary.BigEndian.AppendUint64(nil, wrapIV)
	if subtle.ConstantTimeCompare(b[:wrapChunk], iv) != 1 {
		clear(out)
		return nil, keystore.ErrBadData
	}
	return out, nil
}

// count mixes the number of the step into the integrity register.
func count(b *[2 * wrapChunk]byte, step int) {
	register := binary.BigEndian.Uint64(b[:])
	binary.BigEndian.PutUint64(b[:], register^uint64(step))
}
