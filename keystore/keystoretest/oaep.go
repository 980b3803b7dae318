package keystoretest

import (
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
)

// A peer of a store need not be in FIPS 140-3 mode: RSA-OAEP of MSL is with SHA-1, which
// GODEBUG=fips140=only refuses in software. The store may still have it in a device.

func encryptAsPeer(public *rsa.PublicKey, plain []byte) (ciphertext []byte, err error) {
	fips140.WithoutEnforcement(func() { ciphertext, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, public, plain, nil) })
	return ciphertext, err
}

func decryptAsPeer(peer *rsa.PrivateKey, ciphertext []byte) (plain []byte, err error) {
	fips140.WithoutEnforcement(func() { plain, err = rsa.DecryptOAEP(sha1.New(), nil, peer, ciphertext, nil) })
	return plain, err
}
