package proof

import (
	"errors"
	"fmt"
)

// The reasons why an authority does not enroll a device. Both sides get the same error,
// and packages enroll and identity return it to their callers.
var (
	// ErrPending: a person has to approve the device. Try again later.
	ErrPending = errors.New("enrollment is waiting for approval: enroll again after that")
	// ErrRejected: a person rejected the device.
	ErrRejected = errors.New("enrollment was rejected")
	// ErrRevoked: the device was revoked by its EK.
	ErrRevoked = errors.New("device is revoked")
	// ErrKeyRevoked: the offered key is revoked; a new key may be enrolled.
	ErrKeyRevoked = errors.New("key is revoked")
	// ErrPolicy: the policy refuses the EK without asking a person.
	ErrPolicy = errors.New("device is not allowed")
	// ErrEKCertificate: the EK certificate is malformed, expired, for another
	// key, or does not lead to a trusted root.
	ErrEKCertificate = errors.New("EK certificate is not accepted")
	// ErrMalformed: a message is not one of this protocol.
	ErrMalformed = errors.New("malformed message")
	// ErrStale: the challenge was made by another authority, has expired, or was used
	// before, or there was a newer one. Begin again.
	ErrStale = errors.New("challenge is not valid")
	// ErrActivation: the secret of the challenge is wrong, so the EK and the AK
	// are not in the same TPM.
	ErrActivation = errors.New("credential activation failed")
	// ErrNonce: a signature is over another challenge.
	ErrNonce = errors.New("signed for another challenge")
	// ErrKey: a key has the wrong type, curve, size, scheme or attributes.
	ErrKey = errors.New("key is not acceptable")
	// ErrAttestation: what the AK signed is not what was requested.
	ErrAttestation = errors.New("attestation does not match")
	// ErrSignature: a signature does not verify.
	ErrSignature = errors.New("signature is wrong")
	// ErrRenewal: the key that vouches for a renewal is not the current one.
	ErrRenewal = errors.New("the old key may not vouch for new ones")
	// ErrBusy: the authority is overloaded, or too many devices wait for
	// approval. Try again later.
	ErrBusy = errors.New("authority is busy")
	// ErrEventLog: an event log is too long or invalid.
	ErrEventLog = errors.New("event log cannot be used")
	// ErrInternal: the authority failed. Its log says why.
	ErrInternal = errors.New("authority failed")
)

// A fault is an error and the word for it in a message.
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

// FaultWord returns the word for an error; "internal" if it is not an error of this
// package.
func FaultWord(err error) string {
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

// Fail adds details to an error of this package.
func Fail(kind error, format string, args ...any) error {
	return fmt.Errorf("enroll: %w: "+format, append([]any{kind}, args...)...)
}
