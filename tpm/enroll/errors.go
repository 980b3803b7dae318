package enroll

import (
	"errors"
	"fmt"
)

// Why an authority does not enrol a device. Both sides get the same error: the
// authority from [Authority.Handle], the device from [Device.Enroll] and
// [Device.Renew]. Test them with errors.Is.
var (
	// ErrPending: a person has to approve the device. Try again later.
	ErrPending = errors.New("enrolment waits for approval: enrol again after it")
	// ErrRejected: a person said no.
	ErrRejected = errors.New("enrolment was rejected")
	// ErrRevoked: the device was revoked by its EK.
	ErrRevoked = errors.New("device is revoked")
	// ErrKeyRevoked: the key that was offered is revoked; a new key may be
	// enrolled.
	ErrKeyRevoked = errors.New("key is revoked: run tpm init --new-keys and enrol again")
	// ErrPolicy: the policy does not know the EK and asks no person.
	ErrPolicy = errors.New("device is not allowed")
	// ErrEKCertificate: the EK certificate is malformed, expired, for another
	// key, or does not lead to a trusted root.
	ErrEKCertificate = errors.New("EK certificate is not accepted")
	// ErrMalformed: a message that is not one of this protocol.
	ErrMalformed = errors.New("malformed message")
	// ErrStale: the challenge is not of this authority, has expired, was used,
	// or a newer one was used before. Begin again.
	ErrStale = errors.New("challenge is not valid")
	// ErrActivation: the secret of the challenge is wrong, so the EK and the AK
	// are not in the same TPM.
	ErrActivation = errors.New("credential activation failed")
	// ErrNonce: a signature is over another challenge.
	ErrNonce = errors.New("signed for another challenge")
	// ErrKey: a key has the wrong type, curve, size, scheme or attributes.
	ErrKey = errors.New("key is not acceptable")
	// ErrAttestation: what the AK signed is not what was asked for.
	ErrAttestation = errors.New("attestation does not fit")
	// ErrSignature: a signature does not verify.
	ErrSignature = errors.New("signature is wrong")
	// ErrRenewal: the key that vouches for a renewal is not the current one.
	ErrRenewal = errors.New("the old key may not vouch for new ones: run tpm init --new-keys and enrol again")
	// ErrBusy: the authority has too much to do, or too many devices wait for
	// approval. Try again later.
	ErrBusy = errors.New("authority is busy")
	// ErrInternal: the authority failed. Its log tells why.
	ErrInternal = errors.New("authority failed")
)

// Errors of devices.
var (
	// ErrNotInitialized: the device has no keys yet. Run tpm init.
	ErrNotInitialized = errors.New("device has no identity: run tpm init")
	// ErrNotEnrolled: the device has keys and no identity yet. Run tpm enroll.
	ErrNotEnrolled = errors.New("device is not enrolled: run tpm enroll")
	// ErrCleared: the keys of the device do not load any more. Its EK is the
	// same, and so is its record.
	ErrCleared = errors.New("keys do not load, the TPM was cleared: run tpm init and tpm enroll again")
	// ErrOtherTPM: the state file was made with another TPM. If the TPM was
	// replaced, run tpm init --replace, enrol, and let an operator merge the
	// records.
	ErrOtherTPM = errors.New("state file is of another TPM: if this TPM takes its place, run tpm init --replace")
)

// Errors of operators.
var (
	// ErrUnknown: there is no such record, key or certificate.
	ErrUnknown = errors.New("no such enrolment")
	// ErrName: the name cannot be used, or another device has it.
	ErrName = errors.New("name cannot be used")
	// ErrState: the state of the record does not allow it.
	ErrState = errors.New("not possible in this state")
	// ErrDamaged: a file is not what this package wrote.
	ErrDamaged = errors.New("file is damaged")
	// ErrInUse: another process has the file open.
	ErrInUse = errors.New("file is in use")
	// ErrEvidence: stored evidence does not prove what the record says.
	ErrEvidence = errors.New("evidence does not hold")
)

// A fault is an error with the word that stands for it in a message.
type fault struct {
	word string
	err  error
}

func faults() []fault {
	return []fault{
		{"pending", ErrPending}, {"rejected", ErrRejected}, {"revoked", ErrRevoked}, {"key-revoked", ErrKeyRevoked},
		{"policy", ErrPolicy}, {"ek-certificate", ErrEKCertificate}, {"malformed", ErrMalformed}, {"stale", ErrStale},
		{"activation", ErrActivation}, {"nonce", ErrNonce}, {"key", ErrKey}, {"attestation", ErrAttestation},
		{"signature", ErrSignature}, {"renewal", ErrRenewal}, {"busy", ErrBusy},
	}
}

// faultWord is the word of an error; what has none is the authority's own.
func faultWord(err error) string {
	for _, f := range faults() {
		if errors.Is(err, f.err) {
			return f.word
		}
	}
	return "internal"
}

func faultOf(word string) error {
	for _, f := range faults() {
		if f.word == word {
			return f.err
		}
	}
	return ErrInternal
}

func fail(kind error, format string, args ...any) error {
	return fmt.Errorf("enroll: %w: "+format, append([]any{kind}, args...)...)
}
