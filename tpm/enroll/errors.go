package enroll

import (
	"errors"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// The reasons why an authority does not enroll a device: the errors of
// [Authority.Handle]. The device gets the same ones. Test for them with errors.Is.
var (
	// ErrPending: a person has to approve the device. Try again later.
	ErrPending = proof.ErrPending
	// ErrRejected: a person rejected the device.
	ErrRejected = proof.ErrRejected
	// ErrRevoked: the device was revoked by its EK.
	ErrRevoked = proof.ErrRevoked
	// ErrKeyRevoked: the offered key is revoked; a new key may be enrolled.
	ErrKeyRevoked = proof.ErrKeyRevoked
	// ErrPolicy: the policy refuses the EK without asking a person.
	ErrPolicy = proof.ErrPolicy
	// ErrEKCertificate: the EK certificate is malformed, expired, for another
	// key, or does not lead to a trusted root.
	ErrEKCertificate = proof.ErrEKCertificate
	// ErrMalformed: a message is not one of this protocol.
	ErrMalformed = proof.ErrMalformed
	// ErrStale: the challenge was made by another authority, has expired, or was used
	// before, or there was a newer one. Begin again.
	ErrStale = proof.ErrStale
	// ErrActivation: the secret of the challenge is wrong, so the EK and the AK
	// are not in the same TPM.
	ErrActivation = proof.ErrActivation
	// ErrNonce: a signature is over another challenge.
	ErrNonce = proof.ErrNonce
	// ErrKey: a key has the wrong type, curve, size, scheme or attributes.
	ErrKey = proof.ErrKey
	// ErrAttestation: what the AK signed is not what was requested.
	ErrAttestation = proof.ErrAttestation
	// ErrSignature: a signature does not verify.
	ErrSignature = proof.ErrSignature
	// ErrRenewal: the key that vouches for a renewal is not the current one.
	ErrRenewal = proof.ErrRenewal
	// ErrBusy: the authority is overloaded, or too many devices wait for
	// approval. Try again later.
	ErrBusy = proof.ErrBusy
	// ErrInternal: the authority failed. Its log says why.
	ErrInternal = proof.ErrInternal
)

// Errors of the methods for operators, and of files.
var (
	// ErrUnknown: there is no such record, key or certificate.
	ErrUnknown = errors.New("no such enrollment")
	// ErrName: the name cannot be used, or another device has it.
	ErrName = errors.New("name cannot be used")
	// ErrEventLog: an event log is too long or invalid.
	ErrEventLog = proof.ErrEventLog
	// ErrState: not possible in the state of the record.
	ErrState = errors.New("not possible in this state")
	// ErrDamaged: a file is not what this package wrote.
	ErrDamaged = kv.ErrDamaged
	// ErrCA says that the certificate of the CA has expired, is not that of its key, or is no
	// CA's. [NewCA] makes another.
	ErrCA = errors.New("the certificate of the CA cannot issue others")
	// ErrForged: someone without the key changed an authenticated file.
	ErrForged = kv.ErrForged
	// ErrInUse: another process has the file open.
	ErrInUse = kv.ErrInUse
	// ErrExists: a file of that name already exists.
	ErrExists = kv.ErrExists
	// ErrEvidence: stored evidence does not prove what the record says.
	ErrEvidence = errors.New("evidence is not valid")
)
