// Package oaeptrial finds out whether a device can decrypt.
package oaeptrial

import (
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
)

// Encrypt encrypts data that protects nothing with RSA-OAEP (RFC 8017 section 7.1) with SHA-1, which
// is that of MSL, to find out what a device does with it. So FIPS 140-3 has no objection to SHA-1
// there, and GODEBUG=fips140=only, which refuses it, does not apply.
func Encrypt(public *rsa.PublicKey, data []byte) (ciphertext []byte, err error) {
	fips140.WithoutEnforcement(func() { ciphertext, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, public, data, nil) })
	return ciphertext, err
}
