package balanced

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"

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

// with does an operation with the key as an I.
func with[I any](k *key, op func(I) ([]byte, error)) ([]byte, error) {
	return use(k.store, k.store.limit, []*key{k}, func(p *place, on []keystore.Key) ([]byte, error) {
		inner, ok := on[0].(I)
		if !ok {
			return nil, fmt.Errorf("balanced: the key store %s cannot do that: %w", p.name, errors.ErrUnsupported)
		}
		return op(inner)
	})
}

type cipherKey struct{ *key }

// Encrypt encrypts on a token.
func (k cipherKey) Encrypt(iv, plaintext []byte) ([]byte, error) {
	iv, plaintext = k.store.kept(iv), k.store.kept(plaintext)
	return with(k.key, func(inner keystore.Cipher) ([]byte, error) { return inner.Encrypt(iv, plaintext) })
}

// Decrypt decrypts on a token.
func (k cipherKey) Decrypt(iv, ciphertext []byte) ([]byte, error) {
	iv, ciphertext = k.store.kept(iv), k.store.kept(ciphertext)
	return with(k.key, func(inner keystore.Cipher) ([]byte, error) { return inner.Decrypt(iv, ciphertext) })
}

// kept returns bytes that the caller will not change while an operation uses them that was
// given up. Where none is given up they are those of the caller.
func (s *tokens) kept(b []byte) []byte {
	if s.limit < 0 {
		return b
	}
	return slices.Clone(b)
}

type macKey struct{ *key }

// Sum computes the tag on a token.
func (k macKey) Sum(data []byte) ([]byte, error) {
	data = k.store.kept(data)
	return with(k.key, func(inner keystore.MAC) ([]byte, error) { return inner.Sum(data) })
}

// Doubt has a token find out whether a tag is wrong.
func (k macKey) Doubt(data, sum []byte) error {
	data, sum = k.store.kept(data), k.store.kept(sum)
	_, err := with(k.key, func(inner keystore.MAC) ([]byte, error) { return nil, keystore.Doubt(inner, data, sum) })
	return err
}

type wrapKey struct{ *key }

// Wrap wraps a key of the same store.
func (k wrapKey) Wrap(other keystore.Key) ([]byte, error) {
	victim, err := k.store.own(other)
	if err != nil {
		return nil, err
	}
	here, there := k.bound(), victim.bound()
	if here != nil && there != nil && here != there {
		if err := k.store.carry(victim, here); err != nil {
			return nil, err
		}
	}
	return use(k.store, k.store.limit, []*key{k.key, victim}, func(_ *place, on []keystore.Key) ([]byte, error) {
		return on[0].(keystore.Wrapper).Wrap(on[1])
	})
}

// WrapData wraps bytes of this process.
func (k wrapKey) WrapData(raw []byte) ([]byte, error) {
	return with(k.key, func(inner keystore.DataWrapper) ([]byte, error) {
		own := bytes.Clone(raw) // the caller wipes raw, when a call may still be under way
		defer clear(own)
		return inner.WrapData(own)
	})
}

type unwrapKey struct{ *key }

// Unwrap makes a session key of what a peer wrapped, on the token of the key.
func (k unwrapKey) Unwrap(a keystore.Algorithm, wrapped []byte) (keystore.Key, error) {
	wrapped = k.store.kept(wrapped)
	return use(k.store, k.store.limit, []*key{k.key}, func(p *place, on []keystore.Key) (keystore.Key, error) {
		inner, err := on[0].(keystore.Unwrapper).Unwrap(a, wrapped)
		if err != nil {
			return nil, err
		}
		return k.store.adopt(p, inner).typed(), nil
	})
}

// A privateUnwrapKey is the private half of a pair.
type privateUnwrapKey struct{ unwrapKey }

// Public returns the *rsa.PublicKey to wrap for.
func (k privateUnwrapKey) Public() crypto.PublicKey { return k.public }

type signKey struct{ *key }

// Public returns the *rsa.PublicKey or *ecdsa.PublicKey.
func (k signKey) Public() crypto.PublicKey { return k.public }

// Sign signs a digest on a token, with its random numbers.
func (k signKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	digest = k.store.kept(digest)
	return with(k.key, func(inner crypto.Signer) ([]byte, error) { return inner.Sign(random, digest, opts) })
}

type decryptKey struct{ *key }

// Public returns the *rsa.PublicKey to encrypt for.
func (k decryptKey) Public() crypto.PublicKey { return k.public }

// Decrypt decrypts on a token, into this process.
func (k decryptKey) Decrypt(random io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	ciphertext = k.store.kept(ciphertext)
	return with(k.key, func(inner crypto.Decrypter) ([]byte, error) { return inner.Decrypt(random, ciphertext, opts) })
}

type revealKey struct{ *key }

// Reveal unwraps into this process.
func (k revealKey) Reveal(wrapped []byte) ([]byte, error) {
	wrapped = k.store.kept(wrapped)
	return with(k.key, func(inner keystore.Revealer) ([]byte, error) { return inner.Reveal(wrapped) })
}

// Format keeps keys short in every printed form.
func (k *key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%v key", k.algorithm) }
