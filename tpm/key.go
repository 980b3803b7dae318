package tpm

import (
	"crypto"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A key is the common part of every kind of key.
type key struct {
	storage   *storage
	sessions  *sessionKeys // of a session key
	algorithm keystore.Algorithm
	object    *object
	record    *record          // of a provisioned key
	public    crypto.PublicKey // of a key pair
	closed    atomic.Bool

	mu     sync.Mutex
	locked bool // must not be sealed (again)
}

// typed returns k as the type that implements its algorithm.
func (k *key) typed() keystore.Key {
	switch k.algorithm {
	case keystore.AES128CBC, keystore.AES256CBC:
		return cipherKey{k}
	case keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128:
		return macKey{k}
	case keystore.AESReveal128:
		return revealKey{k}
	case keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096, keystore.ECDSAP256, keystore.ECDSAP384:
		return signer{k}
	case keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096:
		return decrypter{k}
	}
	return k // a sealing key: no operations
}

// Algorithm returns the algorithm of the key.
func (k *key) Algorithm() keystore.Algorithm { return k.algorithm }

// Close flushes a session key, and ends the use of a provisioned one.
func (k *key) Close() error {
	if k.closed.Swap(true) || k.sessions == nil {
		return nil
	}
	k.sessions.remove(k)
	k.storage.device.release(k.object)
	return nil
}

func (k *key) base() *key { return k }

// check returns [keystore.ErrClosed] if the key is closed.
func (k *key) check() error {
	if k.closed.Load() || k.record != nil && k.record.gone.Load() {
		return fmt.Errorf("tpm: %v key: %w", k.algorithm, keystore.ErrClosed)
	}
	return nil
}

// use runs f while the key is loaded.
func (k *key) use(f func(loadedKey) error) error { return k.storage.use(k.object, k.check, f) }

// leave locks the key, or returns [keystore.ErrLocked] if it already is.
func (k *key) leave() error {
	if err := k.check(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.locked {
		return fmt.Errorf("tpm: %v key: %w", k.algorithm, keystore.ErrLocked)
	}
	k.locked = true
	return nil
}

// ownKey finds the key of this store behind k.
func ownKey(s *Store, k keystore.Key) (*key, error) {
	if b, ok := k.(interface{ base() *key }); ok && b.base().storage == s.storage {
		return b.base(), nil
	}
	return nil, fmt.Errorf("tpm: key of another store: %w", keystore.ErrWrongKey)
}
