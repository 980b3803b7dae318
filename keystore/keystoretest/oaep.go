package keystoretest

import (
	"crypto/fips140"
	"crypto/rsa"
	"crypto/sha1"
)

// A peer of a store need not be in FIPS 140-3 mode: RSA-OAEP of MSL is with SHA-1, which
// GODEBUG=fips140=only refuses in software. The store may still have it in a device.

func decryptAsPeer(peer *rsa.PrivateKey, ciphertext []byte) (plain []byte, err error) {
	fips140.WithoutEnforcement(func() { plain, err = rsa.DecryptOAEP(sha1.New(), nil, peer, ciphertext, nil) })
	return plain, err
}
