package msl

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A Protector makes the protected parts of outgoing messages. Encrypt returns a
// ciphertext envelope, or the plaintext for a scheme that does not encrypt; Sign
// returns a signature over exactly the bytes it is given, which is empty for a scheme
// that does not authenticate.
type Protector interface {
	Encrypt(plaintext []byte) ([]byte, error)
	Sign(data []byte) ([]byte, error)
}

// An Opener reads what a peer's Protector protected; it can never sign. Verify is
// always called before Decrypt.
type Opener interface {
	Decrypt(data []byte) ([]byte, error)
	Verify(data, signature []byte) error
}

// errSignature is the error of every Opener for a signature that does not match.
var errSignature = errors.New("msl: signature does not match")

// A SymmetricKey protects with AES-CBC and a MAC, and opens what was protected:
// the keys of a session, a pre-shared key set, an issuer or a service token.
// KeyID is sent to the peer and never compared.
type SymmetricKey struct {
	KeyID      string
	Encryption keystore.Cipher
	MAC        keystore.MAC
	Rand       io.Reader // for initialization vectors; nil means crypto/rand
}

// Encrypt returns a version 1 ciphertext envelope.
func (k SymmetricKey) Encrypt(plaintext []byte) ([]byte, error) {
	mem := wire.NewMemory()
	defer mem.Free()
	return k.encrypt(mem, nil, plaintext)
}

// Decrypt opens a version 1 ciphertext envelope. If its form is valid, every other fault
// is the same error.
func (k SymmetricKey) Decrypt(data []byte) ([]byte, error) {
	mem := wire.NewMemory()
	defer mem.Free()
	return k.decrypt(mem, []byte{}, data)
}

// Sign returns the MAC of data.
func (k SymmetricKey) Sign(data []byte) ([]byte, error) { return k.sign(nil, data) }

// Verify compares in constant time.
func (k SymmetricKey) Verify(data, signature []byte) error {
	mem := wire.NewMemory()
	defer mem.Free()
	return k.verify(mem, data, signature)
}

// A SigningKey authenticates without encrypting: SHA256withRSA (PKCS #1 v1.5) or
// SHA256withECDSA (ASN.1 DER), depending on the key.
type SigningKey struct{ Key crypto.Signer }

// Encrypt returns the plaintext.
func (k SigningKey) Encrypt(plaintext []byte) ([]byte, error) { return plaintext, nil }

// Sign returns the signature of data.
func (k SigningKey) Sign(data []byte) ([]byte, error) {
	digest := sha256.Sum256(data)
	signature, err := k.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fail(ErrInternalException, "sign", err)
	}
	return signature, nil
}

// A VerifyKey opens what a SigningKey made. Key is an *rsa.PublicKey or an
// *ecdsa.PublicKey.
type VerifyKey struct{ Key crypto.PublicKey }

// Decrypt returns data.
func (k VerifyKey) Decrypt(data []byte) ([]byte, error) { return data, nil }

// Verify checks the signature of data.
func (k VerifyKey) Verify(data, signature []byte) error {
	digest := sha256.Sum256(data)
	signature = bareSignature(signature, wire.Limits{})
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) != nil {
			return errSignature
		}
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(key, digest[:], signature) {
			return errSignature
		}
	default:
		return fail(ErrVerifyNotSupported, "verify", fmt.Errorf("public key of type %T", k.Key))
	}
	return nil
}

// Null neither encrypts nor authenticates, as in the scheme NONE. Verify accepts
// everything.
type Null struct{}

// Encrypt returns the plaintext.
func (Null) Encrypt(plaintext []byte) ([]byte, error) { return plaintext, nil }

// Decrypt returns data.
func (Null) Decrypt(data []byte) ([]byte, error) { return data, nil }

// Sign returns an empty signature.
func (Null) Sign([]byte) ([]byte, error) { return []byte{}, nil }

// Verify accepts.
func (Null) Verify(_, _ []byte) error { return nil }

// drawing adds a source of randomness to a protector with symmetric keys, unless it has
// one.
func drawing(p Protector, random io.Reader) Protector {
	switch k := p.(type) {
	case SymmetricKey:
		if k.Rand == nil {
			k.Rand = random
		}
		return k
	case KeyRing:
		if len(k) > 0 && k[0].Rand == nil { // only the first protects
			k = slices.Clone(k)
			k[0].Rand = random
		}
		return k
	case serviceRing:
		if k.rand == nil {
			k.rand = random
		}
		return k
	}
	return p
}

func orRandom(r io.Reader) io.Reader {
	if r == nil {
		return rand.Reader
	}
	return r
}
