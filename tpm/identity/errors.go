package identity

import (
	"errors"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// The answers of an authority that are errors of [Device.Enroll] and [Device.Renew].
// Test for them with errors.Is.
var (
	// ErrPending: a person has to approve the device. Try again later.
	ErrPending = proof.ErrPending
	// ErrRejected: a person rejected the device.
	ErrRejected = proof.ErrRejected
	// ErrRevoked: the device was revoked by its EK.
	ErrRevoked = proof.ErrRevoked
	// ErrKeyRevoked: the offered key is revoked. Make new ones with InitOptions.NewKeys,
	// and enroll them.
	ErrKeyRevoked = proof.ErrKeyRevoked
	// ErrPolicy: the policy refuses the EK without asking a person.
	ErrPolicy = proof.ErrPolicy
	// ErrEKCertificate: the EK certificate is malformed, expired, for another
	// key, or does not lead to a trusted root.
	ErrEKCertificate = proof.ErrEKCertificate
	// ErrRenewal: the key that vouches for a renewal is not the current one.
	ErrRenewal = proof.ErrRenewal
	// ErrBusy: the authority is overloaded, or too many devices wait for
	// approval. Try again later.
	ErrBusy = proof.ErrBusy
	// ErrStale: the challenge expired, or was used, twice in a row.
	ErrStale = proof.ErrStale
	// ErrActivation: the challenge is for another TPM or AK.
	ErrActivation = proof.ErrActivation
	// ErrMalformed: a message is not one of this protocol.
	ErrMalformed = proof.ErrMalformed
	// ErrNonce, ErrKey, ErrAttestation and ErrSignature: the authority found a
	// fault in the proof of the TPM.
	ErrNonce       = proof.ErrNonce
	ErrKey         = proof.ErrKey
	ErrAttestation = proof.ErrAttestation
	ErrSignature   = proof.ErrSignature
	// ErrInternal: the authority failed. Its log says why.
	ErrInternal = proof.ErrInternal
)

// Errors that the state of a device causes.
var (
	// ErrNotInitialized: the device has no keys yet. [Device.Init] makes them.
	ErrNotInitialized = errors.New("device has no identity")
	// ErrNotEnrolled: the device has keys but no identity yet. [Device.Enroll] gets one.
	ErrNotEnrolled = errors.New("device is not enrolled")
	// ErrCleared: the keys of the device no longer load. Its EK, and therefore its
	// record, is the same: Init and Enroll restore the identity.
	ErrCleared = errors.New("keys do not load since the TPM was cleared")
	// ErrOtherTPM: the state file was made with another TPM. If the TPM was
	// replaced, Init with InitOptions.Replace, Enroll, and let an operator merge
	// the records.
	ErrOtherTPM = errors.New("state file belongs to another TPM")
	// ErrOtherEK: Init was asked for a different kind of EK than the device has.
	// InitOptions.Replace gives up the identity for that.
	ErrOtherEK = errors.New("a different EK would make it a different device")
	// ErrDamaged: the state file is not what this package wrote.
	ErrDamaged = errors.New("file is damaged")
	// ErrInUse: another process changed the state file in the meantime.
	ErrInUse = errors.New("file is in use")
)
