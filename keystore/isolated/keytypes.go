package isolated

import (
	"crypto"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// typed gives a key the methods of its algorithm, and no others.
func (k *key) typed() keystore.Key {
	switch k.algorithm {
	case keystore.AES128CBC, keystore.AES256CBC:
		return cipherKey{k}
	case keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128:
		return macKey{k}
	case keystore.AESWrap128:
		return wrapKey{k}
	case keystore.AESUnwrap128:
		return unwrapKey{k}
	case keystore.RSAUnwrap2048, keystore.RSAUnwrap3072, keystore.RSAUnwrap4096:
		return privateUnwrapKey{unwrapKey{k}}
	case keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096, keystore.ECDSAP256, keystore.ECDSAP384,
		keystore.RSAPSS2048, keystore.RSAPSS3072, keystore.RSAPSS4096:
		return signKey{k}
	case keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096:
		return decryptKey{k}
	case keystore.AESReveal128:
		return revealKey{k}
	}
	return k // a sealing key does nothing by itself
}

// typed returns a new key with the methods of its algorithm.
func typed(k *key, err error) (keystore.Key, error) {
	if err != nil {
		return nil, err
	}
	return k.typed(), nil
}

type cipherKey struct{ *key }

// Encrypt encrypts in the child.
func (k cipherKey) Encrypt(iv, plaintext []byte) ([]byte, error) {
	return k.bytes(opEncrypt, func(m message) message { return m.bytes(iv).bytes(plaintext) })
}

// Decrypt decrypts in the child.
func (k cipherKey) Decrypt(iv, ciphertext []byte) ([]byte, error) {
	return k.bytes(opDecrypt, func(m message) message { return m.bytes(iv).bytes(ciphertext) })
}

type macKey struct{ *key }

// Sum computes the tag in the child.
func (k macKey) Sum(data []byte) ([]byte, error) {
	return k.bytes(opSum, func(m message) message { return m.bytes(data) })
}

// Doubt has the child find out whether the device is at fault.
func (k macKey) Doubt(data, sum []byte) error {
	_, err := k.bytes(opDoubt, func(m message) message { return m.bytes(data).bytes(sum) })
	return err
}

type wrapKey struct{ *key }

// Wrap wraps a key of the same store.
func (k wrapKey) Wrap(other keystore.Key) (wrapped []byte, err error) {
	own, err := k.store.own(other)
	if err != nil {
		return nil, err
	}
	err = k.store.do(opWrap, func(p *process) error {
		handle, err := k.in(p)
		if err != nil {
			return err
		}
		victim, err := own.in(p)
		if err != nil {
			return err
		}
		return p.call(k.store.config.limit(), opWrap, func(m message) message { return m.number(handle).number(victim) }, func(f *fields) error {
			wrapped = append([]byte{}, f.bytes()...)
			return nil
		})
	})
	return wrapped, err
}

// WrapData wraps bytes of this process.
func (k wrapKey) WrapData(raw []byte) ([]byte, error) {
	return k.bytes(opWrapData, func(m message) message { return m.bytes(raw) })
}

type unwrapKey struct{ *key }

// Unwrap makes a session key of what a peer wrapped.
func (k unwrapKey) Unwrap(a keystore.Algorithm, wrapped []byte) (keystore.Key, error) {
	var made *key
	err := k.store.do(opUnwrap, func(p *process) error {
		handle, err := k.in(p)
		if err != nil {
			return err
		}
		write := func(m message) message { return m.number(handle).number(uint64(a)).bytes(wrapped) }
		return p.call(k.store.config.limit(), opUnwrap, write, func(f *fields) (err error) {
			made, err = k.store.take(p, f.key())
			return err
		})
	})
	return typed(made, err)
}

// A privateUnwrapKey is the private half of a pair.
type privateUnwrapKey struct{ unwrapKey }

// Public returns the *rsa.PublicKey to wrap for.
func (k privateUnwrapKey) Public() crypto.PublicKey { return k.public }

type signKey struct{ *key }

// Public returns the *rsa.PublicKey or *ecdsa.PublicKey.
func (k signKey) Public() crypto.PublicKey { return k.public }

// Sign signs a digest in the child, with its random numbers.
func (k signKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.bytes(opSign, func(m message) message { return m.bytes(digest).signerOptions(opts) })
}

type decryptKey struct{ *key }

// Public returns the *rsa.PublicKey to encrypt for.
func (k decryptKey) Public() crypto.PublicKey { return k.public }

// Decrypt decrypts into this process.
func (k decryptKey) Decrypt(_ io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	return k.bytes(opDecryptPair, func(m message) message { return m.bytes(ciphertext).decrypterOptions(opts) })
}

type revealKey struct{ *key }

// Reveal unwraps into this process.
func (k revealKey) Reveal(wrapped []byte) ([]byte, error) {
	return k.bytes(opReveal, func(m message) message { return m.bytes(wrapped) })
}

// Format keeps keys short in every printed form.
func (k *key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%v key", k.algorithm) }
