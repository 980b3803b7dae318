package keystore

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"reflect"
)

// Find returns the newest version of the provisioned key label as the interface K, such as
// [Cipher], [MAC] or [crypto.Signer]. If no key has the label the error is [ErrNotFound],
// and if the key does not implement K it is [ErrWrongKey]; other errors are those of
// [Store.Lookup].
func Find[K any](s Store, label string) (K, error) {
	ring, err := s.Lookup(label)
	if err != nil {
		var none K
		return none, err
	}
	return As[K](label, ring[0])
}

// As returns a version of the provisioned key label as the interface K. If the key does not
// implement K the error is [ErrWrongKey].
func As[K any](label string, v Version) (K, error) {
	k, ok := v.Key.(K)
	if !ok {
		return k, fmt.Errorf("keystore: key %q is for %v, which is not a %v: %w", label, v.Key.Algorithm(), reflect.TypeFor[K](), ErrWrongKey)
	}
	return k, nil
}

// KeyID names a public key of a type that [x509.MarshalPKIXPublicKey] takes: 16 hexadecimal
// digits, the start of the SHA-256 of its PKIX form. Both peers can compute it, so they
// need not agree on a name.
func KeyID(public any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:8]), nil
}

// SamePublic reports whether two public keys of the standard library are the same key. A nil
// key is not the same as any, nor as another nil.
func SamePublic(a, b crypto.PublicKey) bool {
	known, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && b != nil && known.Equal(b)
}
