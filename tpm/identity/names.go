package identity

import "github.com/msl-hsm/msl-hsm/tpm/internal/proof"

// MaxMessage is the largest message of an enrollment in bytes, in either
// direction.
const MaxMessage = proof.MaxMessage

// An EKKind is one of the kinds of endorsement keys of the TCG EK Credential Profile,
// section 2.2.1.
type EKKind = proof.EKKind

// The kinds of EK, in the order in which Init looks for a certificate.
const (
	EKRSA2048 = proof.EKRSA2048 // template L-1
	EKP256    = proof.EKP256    // template L-2
	EKP384    = proof.EKP384    // template H-3
	EKRSA3072 = proof.EKRSA3072 // template H-6
	EKP521    = proof.EKP521    // template H-4

	EKRSA2048High = proof.EKRSA2048High // template H-1
	EKP256High    = proof.EKP256High    // template H-2
)

// HexBytes are bytes, such as the TPM Name of a key, written as hexadecimal digits.
type HexBytes = proof.HexBytes
