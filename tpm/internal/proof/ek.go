package proof

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
)

// An EKKind is one of the kinds of endorsement keys of the TCG EK Credential Profile,
// section 2.2.1.
type EKKind string

// The kinds of EK.
const (
	EKRSA2048 EKKind = "rsa2048" // template L-1
	EKP256    EKKind = "p256"    // template L-2
	EKP384    EKKind = "p384"    // template H-3
)

// EKHash identifies a device: it is the SHA-256 of the public key of its EK as a
// SubjectPublicKeyInfo (RFC 5280 section 4.1).
func EKHash(ek crypto.PublicKey) ([sha256.Size]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(ek)
	if err != nil {
		return [sha256.Size]byte{}, Fail(ErrKey, "EK: %w", err)
	}
	return sha256.Sum256(der), nil
}
