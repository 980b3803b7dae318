package soft

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Bounds of a peer's RSA modulus: weaker ones protect nothing, and longer ones
// cost this side more than the peer.
const (
	minModulus = 2048
	maxModulus = 8192
)

type rsaSigner struct{ *key }

// Public returns the public key.
func (k rsaSigner) Public() crypto.PublicKey { return k.m.public }

// Sign signs a SHA-256 digest with PKCS #1 v1.5 (RFC 8017 section 8.2).
func (k rsaSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, pss := opts.(*rsa.PSSOptions); pss {
		return nil, fmt.Errorf("soft: sign with RSA-PSS: %w", errors.ErrUnsupported)
	}
	if err := checkDigest(digest, opts, crypto.SHA256); err != nil {
		return nil, err
	}
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	return m.pair.Sign(rand.Reader, digest, crypto.SHA256)
}

type pssSigner struct{ *key }

// Public returns the public key.
func (k pssSigner) Public() crypto.PublicKey { return k.m.public }

// Sign signs a digest of SHA-256, SHA-384 or SHA-512 as RSASSA-PSS with a salt as long
// as the hash (RFC 8017 section 8.1), for which opts must be an [*rsa.PSSOptions].
func (k pssSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	pss, ok := opts.(*rsa.PSSOptions)
	if !ok || pss == nil {
		return nil, fmt.Errorf("soft: the key signs only with RSA-PSS: %w", errors.ErrUnsupported)
	}
	if err := checkDigest(digest, pss.Hash, crypto.SHA256, crypto.SHA384, crypto.SHA512); err != nil {
		return nil, err
	}
	if pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != pss.Hash.Size() {
		return nil, fmt.Errorf("soft: sign with a salt of %d bytes: %w", pss.SaltLength, errors.ErrUnsupported)
	}
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	return m.pair.Sign(rand.Reader, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: pss.Hash})
}

type ecdsaSigner struct{ *key }

// Public returns the public key.
func (k ecdsaSigner) Public() crypto.PublicKey { return k.m.public }

// Sign signs a SHA-256 digest or, with P-384, a SHA-384 digest too.
func (k ecdsaSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	hashes := []crypto.Hash{crypto.SHA256, crypto.SHA384}
	if k.algorithm == keystore.ECDSAP256 {
		hashes = hashes[:1]
	}
	if err := checkDigest(digest, opts, hashes...); err != nil {
		return nil, err
	}
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	return ecdsa.SignASN1(rand.Reader, m.pair.(*ecdsa.PrivateKey), digest)
}

func checkDigest(digest []byte, opts crypto.SignerOpts, allowed ...crypto.Hash) error {
	if opts == nil {
		return fmt.Errorf("soft: sign without a hash function: %w", errors.ErrUnsupported)
	}
	for _, hash := range allowed {
		if opts.HashFunc() != hash {
			continue
		}
		if len(digest) != hash.Size() {
			return fmt.Errorf("soft: digest of %d bytes for %v: %w", len(digest), hash, keystore.ErrBadData)
		}
		return nil
	}
	return fmt.Errorf("soft: sign with %v: %w", opts.HashFunc(), errors.ErrUnsupported)
}

type rsaUnwrapKey struct{ *key }

// Public returns the public key, for which a peer wraps.
func (k rsaUnwrapKey) Public() crypto.PublicKey { return k.m.public }

// Unwrap makes a session key of what a peer wrapped with RSA-OAEP.
func (k rsaUnwrapKey) Unwrap(a keystore.Algorithm, wrapped []byte) (keystore.Key, error) {
	if err := permitted("unwrap by RSA-OAEP with SHA-1"); err != nil {
		return nil, err
	}
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	raw, err := rsa.DecryptOAEP(sha1.New(), nil, m.pair.(*rsa.PrivateKey), wrapped, nil)
	m.mu.RUnlock()
	return k.unwrapped(a, raw, err)
}

type rsaDecrypter struct{ *key }

// Public returns the public key, for which a peer encrypts.
func (k rsaDecrypter) Public() crypto.PublicKey { return k.m.public }

// Decrypt decrypts RSA-OAEP with SHA-1 and no label and, for peers that know
// nothing better, PKCS #1 v1.5 (RFC 8017 sections 7.1 and 7.2).
func (k rsaDecrypter) Decrypt(_ io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	if err := permitted("decrypt RSA-OAEP with SHA-1, or PKCS #1 v1.5"); err != nil {
		return nil, err
	}
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	var plain []byte
	switch opts := opts.(type) {
	case *rsa.OAEPOptions:
		if opts.Hash != crypto.SHA1 || opts.MGFHash > 0 && opts.MGFHash != crypto.SHA1 || len(opts.Label) > 0 {
			return nil, fmt.Errorf("soft: decrypt RSA-OAEP with %v: %w", opts.Hash, errors.ErrUnsupported)
		}
		plain, err = rsa.DecryptOAEP(sha1.New(), nil, m.pair.(*rsa.PrivateKey), ciphertext, nil)
	//lint:ignore SA1019 JWK_RSAES is PKCS #1 v1.5; the caller chose it
	case *rsa.PKCS1v15DecryptOptions:
		//lint:ignore SA1019 JWK_RSAES is PKCS #1 v1.5; the caller chose it
		plain, err = rsa.DecryptPKCS1v15(nil, m.pair.(*rsa.PrivateKey), ciphertext)
	default:
		return nil, fmt.Errorf("soft: decrypt with %T: %w", opts, errors.ErrUnsupported)
	}
	if err != nil {
		return nil, fmt.Errorf("soft: decrypt: %w", keystore.ErrBadData)
	}
	return plain, nil
}

// WrapFor wraps k under the peer's RSA key with RSA-OAEP.
func (s *Store) WrapFor(peer crypto.PublicKey, k keystore.Key) ([]byte, error) {
	public, ok := peer.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("soft: wrap for %T: %w", peer, errors.ErrUnsupported)
	}
	if err := errors.Join(checkPeer(public), permitted("wrap by RSA-OAEP with SHA-1")); err != nil {
		return nil, err
	}
	raw, err := s.take(k)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public, raw, nil)
	if err != nil {
		return nil, fmt.Errorf("soft: wrap for RSA key: %w: %w", keystore.ErrBadData, err)
	}
	return wrapped, nil
}

// permitted reports what MSL asks for, and GODEBUG=fips140=only refuses.
func permitted(what string) error {
	if fips140.Enforced() {
		return fmt.Errorf("soft: %s: GODEBUG=fips140=only does not permit it, and fips140=on does: %w", what, errors.ErrUnsupported)
	}
	return nil
}

func checkPeer(public *rsa.PublicKey) error {
	if public == nil || public.N == nil {
		return fmt.Errorf("soft: no RSA key to wrap for: %w", keystore.ErrBadData)
	}
	if bits := public.N.BitLen(); bits < minModulus || bits > maxModulus || public.N.Sign() < 0 || public.N.Bit(0) == 0 {
		return fmt.Errorf("soft: RSA modulus of %d bits: %w", bits, keystore.ErrBadData)
	}
	if public.E < 3 || public.E > math.MaxInt32 || public.E%2 == 0 {
		return fmt.Errorf("soft: RSA exponent %d: %w", public.E, keystore.ErrBadData)
	}
	return nil
}
