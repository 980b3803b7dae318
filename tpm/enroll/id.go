package enroll

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An ID names a device: the SHA-256 of its EK's public key in the form of a
// SubjectPublicKeyInfo (RFC 5280 section 4.1). It is the key alone, since
// nothing proves the attributes in an EK's public area: a device could change
// them to look like another one. It can be had from a certificate, too:
//
//	openssl x509 -in ek.pem -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum
type ID [sha256.Size]byte

// IDOf returns the ID of an EK.
func IDOf(ek crypto.PublicKey) (ID, error) { return proof.EKHash(ek) }

// ParseID reads what String wrote.
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
		return fmt.Errorf("enroll: an EK hash is 64 hexadecimal digits")
	}
	copy(id[:], b)
	return nil
}

// An EKKind is one of the endorsement keys that a TPM has by the TCG EK
// Credential Profile, section 2.2.1.
type EKKind = proof.EKKind

// The kinds of EK.
const (
	EKRSA2048 = proof.EKRSA2048 // template L-1
	EKP256    = proof.EKP256    // template L-2
	EKP384    = proof.EKP384    // template H-3
)

// HexBytes are written as hexadecimal digits: the TPM Names of keys.
type HexBytes = proof.HexBytes
