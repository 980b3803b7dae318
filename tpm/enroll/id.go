package enroll

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An ID, also called EK hash, identifies a device: it is the SHA-256 of the public key of
// its EK as a SubjectPublicKeyInfo (RFC 5280 section 4.1). It does not cover the other
// attributes of the public area, which nothing proves: a device could change them to look
// like another. It can also be computed from a certificate:
//
//	openssl x509 -in ek.pem -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum
type ID [sha256.Size]byte

// IDOf returns the ID of an EK.
func IDOf(ek crypto.PublicKey) (ID, error) { return proof.EKHash(ek) }

// ParseID reads 64 hexadecimal digits.
func ParseID(s string) (id ID, err error) {
	return id, id.UnmarshalText([]byte(s))
}

// String returns 64 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes 64 hexadecimal digits.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (id *ID) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(id) {
		return fmt.Errorf("enroll: an EK hash must be 64 hexadecimal digits")
	}
	copy(id[:], b)
	return nil
}

// An EKKind is one of the kinds of endorsement keys of the TCG EK Credential Profile,
// section 2.2.1.
type EKKind = proof.EKKind

// The kinds of EK.
const (
	EKRSA2048 = proof.EKRSA2048 // template L-1
	EKP256    = proof.EKP256    // template L-2
	EKP384    = proof.EKP384    // template H-3
	EKRSA3072 = proof.EKRSA3072 // template H-6
	EKP521    = proof.EKP521    // template H-4
)

// EKKinds returns every [EKKind] that an authority accepts.
func EKKinds() []EKKind { return proof.EKKinds() }

// HexBytes are bytes, such as the TPM Name of a key, written as hexadecimal digits.
type HexBytes = proof.HexBytes
