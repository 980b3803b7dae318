package soft

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/rsa"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A material is the substance of a key. The handles that Lookup gives share
// one, so it has its own lock: wiping waits for operations to end.
type material struct {
	mu    sync.RWMutex
	wiped bool

	*substance
	public crypto.PublicKey // stays when the rest is wiped
}

// A substance is what nobody may see. No verb of package fmt prints it: even where one does not fit,
// it follows only one of the two pointers that lead here from a store or a key.
type substance struct {
	raw    []byte        // a secret key
	unused *sync.Pool    // what takes long to make of raw: keyed hash.Hash values of an HMAC key, modes of a cipher key
	block  cipher.Block  // raw as another AES key, expanded once
	cmac   *cmac         // for an AES-CMAC key
	pair   crypto.Signer // an RSA or ECDSA key
}

// secret makes the material of a secret key and keeps a copy of raw.
func secret(a keystore.Algorithm, raw []byte) (*material, error) {
	if len(raw) != a.Size() {
		return nil, fmt.Errorf("soft: %v key of %d bytes: %w", a, len(raw), keystore.ErrBadData)
	}
	m := &material{substance: &substance{raw: slices.Clone(raw)}}
	var err error
	switch a {
	case keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.SealMAC256:
		m.unused = hmacPool(m.raw)
	case keystore.AES128CBC, keystore.AES256CBC:
		m.unused, err = modePool(m.raw)
	default:
		m.block, err = aes.NewCipher(m.raw)
	}
	if err != nil {
		return nil, fmt.Errorf("soft: %v key: %w", a, err)
	}
	if a == keystore.AESCMAC128 {
		m.cmac = newCMAC(m.block)
	}
	return m, nil
}

// pair makes the material of a key pair, which must be what a says.
func pair(a keystore.Algorithm, signer crypto.Signer) (*material, error) {
	bits := 0
	switch key := signer.(type) {
	case *rsa.PrivateKey:
		if key != nil && key.N != nil && (a < keystore.ECDSAP256 || a >= keystore.RSADecrypt2048) {
			bits = key.N.BitLen()
		}
	case *ecdsa.PrivateKey:
		if key != nil && key.Curve != nil && (a == keystore.ECDSAP256 || a == keystore.ECDSAP384) {
			bits = key.Params().BitSize
		}
	}
	if a.Secret() || bits == 0 || bits != a.Size() {
		return nil, fmt.Errorf("soft: %T is not a key for %v: %w", signer, a, keystore.ErrWrongKey)
	}
	return &material{substance: &substance{pair: signer}, public: signer.Public()}, nil
}

func (m *material) wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wiped = true
	clear(m.raw)
	*m.substance = substance{}
}

// A key is what every kind of key has in common.
type key struct {
	store       *Store
	algorithm   keystore.Algorithm
	m           *material
	provisioned bool // m belongs to a ring
	closed      atomic.Bool

	mu     sync.Mutex
	locked bool // it may not leave any more
}

// typed gives k the interface of its algorithm.
func (k *key) typed() keystore.Key {
	switch k.algorithm {
	case keystore.AES128CBC, keystore.AES256CBC:
		return cipherKey{k}
	case keystore.HMACSHA256, keystore.HMACSHA256Block:
		return hmacKey{k}
	case keystore.AESCMAC128:
		return cmacKey{k}
	case keystore.AESWrap128:
		return wrapKey{k}
	case keystore.AESUnwrap128:
		return unwrapKey{k}
	case keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096:
		return rsaSigner{k}
	case keystore.RSAPSS2048, keystore.RSAPSS3072, keystore.RSAPSS4096:
		return pssSigner{k}
	case keystore.RSAUnwrap2048, keystore.RSAUnwrap3072, keystore.RSAUnwrap4096:
		return rsaUnwrapKey{k}
	case keystore.ECDSAP256, keystore.ECDSAP384:
		return ecdsaSigner{k}
	case keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096:
		return rsaDecrypter{k}
	case keystore.AESReveal128:
		return revealKey{k}
	}
	return k // a sealing key: no operations
}

// Algorithm says what the key is for.
func (k *key) Algorithm() keystore.Algorithm { return k.algorithm }

// Close destroys a session key and releases a provisioned one.
func (k *key) Close() error {
	if k.closed.Swap(true) || k.provisioned {
		return nil
	}
	k.store.forget(k)
	k.m.wipe()
	return nil
}

func (k *key) base() *key { return k }

// use returns the material, which the caller must RUnlock.
func (k *key) use() (*material, error) {
	if k.closed.Load() {
		return nil, k.errClosed()
	}
	k.m.mu.RLock()
	if k.m.wiped {
		k.m.mu.RUnlock()
		return nil, k.errWiped()
	}
	return k.m, nil
}

// errWiped says that a provisioned key was destroyed, unless its store was closed.
func (k *key) errWiped() error {
	if k.provisioned && k.store.open() == nil {
		return fmt.Errorf("soft: %v key was destroyed: %w", k.algorithm, keystore.ErrNotFound)
	}
	return k.errClosed()
}

func (k *key) errClosed() error {
	return fmt.Errorf("soft: %v key: %w", k.algorithm, keystore.ErrClosed)
}

// leave returns a copy of the key bytes, if they may leave the store. The last
// way out locks the key whatever comes after.
func (k *key) leave(last bool) ([]byte, error) {
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.locked {
		return nil, fmt.Errorf("soft: %v key: %w", k.algorithm, keystore.ErrLocked)
	}
	k.locked = last
	return slices.Clone(m.raw), nil
}

// own finds the key of this store behind k.
func (s *Store) own(k keystore.Key) (*key, error) {
	if b, ok := k.(interface{ base() *key }); ok && b.base().store == s {
		return b.base(), nil
	}
	if s.others != nil {
		return nil, s.others(k)
	}
	return nil, fmt.Errorf("soft: key of another store: %w", keystore.ErrWrongKey)
}

// take returns a copy of the bytes of a secret key that is to be wrapped.
func (s *Store) take(k keystore.Key) ([]byte, error) {
	own, err := s.own(k)
	if err != nil {
		return nil, err
	}
	if !own.algorithm.Secret() {
		return nil, fmt.Errorf("soft: a key pair is never wrapped: %w", keystore.ErrWrongKey)
	}
	return own.leave(false)
}
