package entityauth

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// KeyID names a public key where nobody chose another id: the first 8 bytes of the
// SHA-256 hash of its PKIX form, in hexadecimal. Both sides of a conversation can
// compute it, so they need not agree on a name.
func KeyID(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:8]), nil
}
