// Package hostaes is a [keystore.Store] for the many TPMs that lack the command
// TPM2_EncryptDecrypt2: keys for AES in CBC mode are in the memory of this process, and
// sealed to the TPM if they have to outlast it. All other keys are in the TPM.
package hostaes

import (
	"errors"
	"fmt"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// A Store is a TPM's store, except for the AES session keys. It is safe for concurrent
// use.
type Store struct {
	*tpm.Store
	host *soft.Store
}

// New makes a Store on top of a TPM's, which the caller must close after this one.
func New(chip *tpm.Store) *Store { return &Store{Store: chip, host: soft.New()} }

// onHost reports whether keys of an algorithm are in this process.
func onHost(a keystore.Algorithm) bool { return a == keystore.AES128CBC || a == keystore.AES256CBC }

// Generate makes a session key or a session key pair. AES keys come from a peer and are
// never generated: that is errors.ErrUnsupported.
func (s *Store) Generate(a keystore.Algorithm) (keystore.Key, error) {
	if onHost(a) {
		return nil, fmt.Errorf("hostaes: generate %v: only import it: %w", a, errors.ErrUnsupported)
	}
	return s.Store.Generate(a)
}

// Import makes a session key from raw.
func (s *Store) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	if !onHost(a) {
		return s.Store.Import(a, raw)
	}
	k, err := s.adopt(a, raw)
	if err != nil {
		return nil, err
	}
	k.raw = lockedmem.Copy(raw)
	return k, nil
}

func (s *Store) adopt(a keystore.Algorithm, raw []byte) (*key, error) {
	k, err := s.host.Import(a, raw)
	if err != nil {
		return nil, err
	}
	c, ok := k.(keystore.Cipher)
	if !ok {
		k.Close()
		return nil, fmt.Errorf("hostaes: %v: %w", a, keystore.ErrWrongKey)
	}
	return &key{Cipher: c, store: s}, nil
}

// A key is an AES key. Its bytes are kept until it is sealed or closed.
type key struct {
	keystore.Cipher
	store *Store

	mu     sync.Mutex
	raw    *lockedmem.Buffer // nil once it is locked
	closed bool
}

// Close wipes the key.
func (k *key) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	k.raw.Close()
	return k.Cipher.Close()
}

// take returns the bytes of an unlocked key, and locks it.
func (k *key) take() (*lockedmem.Buffer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return nil, fmt.Errorf("hostaes: %v key: %w", k.Algorithm(), keystore.ErrClosed)
	case k.raw == nil:
		return nil, fmt.Errorf("hostaes: %v key: %w", k.Algorithm(), keystore.ErrLocked)
	}
	raw := k.raw
	k.raw = nil
	return raw, nil
}

// Seal returns a blob of a session key, which only this TPM can open again, and locks the
// key.
func (s *Store) Seal(k keystore.Key, context []byte) ([]byte, error) {
	own, ok := k.(*key)
	if !ok {
		return s.Store.Seal(k, context)
	}
	if own.store != s {
		return nil, fmt.Errorf("hostaes: key of another store: %w", keystore.ErrWrongKey)
	}
	raw, err := own.take()
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	return tpm.SealData(s.Store, own.Algorithm(), raw.Bytes(), context)
}

// Unseal makes a locked key from a blob that Seal returned for the same context.
func (s *Store) Unseal(a keystore.Algorithm, blob, context []byte) (keystore.Key, error) {
	if !onHost(a) {
		return s.Store.Unseal(a, blob, context)
	}
	var k *key
	err := tpm.UnsealData(s.Store, a, blob, context, func(raw []byte) (err error) {
		k, err = s.adopt(a, raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// Live counts the open session keys.
func (s *Store) Live() (objects, sessions int) {
	n, _ := s.host.Live()
	m, _ := s.Store.Live()
	return n + m, 0
}

// Close wipes the AES keys. The TPM's store stays open.
func (s *Store) Close() error { return s.host.Close() }
