package proof

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
)

// An EKKind is one of the kinds of endorsement keys of the TCG EK Credential Profile,
// section 2.2.1. An authority cannot distinguish a key of the high range from one of the
// low range with the same algorithm: it treats both as the latter kind.
type EKKind string

// The kinds of EK.
const (
	EKRSA2048     EKKind = "rsa2048"      // template L-1
	EKP256        EKKind = "p256"         // template L-2
	EKP384        EKKind = "p384"         // template H-3
	EKRSA3072     EKKind = "rsa3072"      // template H-6
	EKP521        EKKind = "p521"         // template H-4
	EKRSA2048High EKKind = "rsa2048-high" // template H-1
	EKP256High    EKKind = "p256-high"    // template H-2
)

// EKKinds are the kinds that an authority distinguishes.
func EKKinds() []EKKind { return []EKKind{EKRSA2048, EKP256, EKP384, EKRSA3072, EKP521} }

// KindOf returns the kind of an EK, or "" if it is not one of the known kinds.
func KindOf(key crypto.PublicKey) EKKind {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return map[int]EKKind{2048: EKRSA2048, 3072: EKRSA3072}[key.N.BitLen()]
	case *ecdsa.PublicKey:
		return map[int]EKKind{256: EKP256, 384: EKP384, 521: EKP521}[key.Curve.Params().BitSize]
	}
	return ""
}

// EKHash identifies a device: it is the SHA-256 of the public key of its EK as a
// SubjectPublicKeyInfo (RFC 5280 section 4.1).
func EKHash(ek crypto.PublicKey) ([sha256.Size]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(ek)
	if err != nil {
		return [sha256.Size]byte{}, Fail(ErrKey, "EK: %w", err)
	}
	return sha256.Sum256(der), nil
}
