package proof

import "crypto/sha256"

// The types of the messages with which an enrolled device regularly proves in which state
// it was started. The answer to the last one is a Result.
const (
	TypeAttestBegin     = "attest-begin"     // device
	TypeAttestChallenge = "attest-challenge" // authority
	TypeAttestation     = "attestation"      // device
)

// UseAttest is the use of a digest that the AK quotes for an attestation.
const UseAttest = "msl-hsm tpm enrolment 1: attest"

// An AttestBegin asks for a challenge.
type AttestBegin struct {
	Type     string `json:"type"`
	Version  int    `json:"version"`
	ID       []byte `json:"id"`                  // EK hash
	EventLog bool   `json:"event_log,omitempty"` // it has one, for whoever asks
}

// An AttestChallenge is not stored by the authority: MAC covers the rest, and the EK hash.
type AttestChallenge struct {
	Type     string `json:"type"`
	Version  int    `json:"version"`
	Nonce    []byte `json:"nonce"`
	Issued   int64  `json:"issued"`              // nanoseconds since 1970, rising for each EK
	EventLog bool   `json:"event_log,omitempty"` // it shall be in the attestation
	MAC      []byte `json:"mac"`
}

// An Attestation is a quote by the AK with which the device enrolled.
type Attestation struct {
	Type      string          `json:"type"`
	Version   int             `json:"version"`
	ID        []byte          `json:"id"`
	Challenge AttestChallenge `json:"challenge"`
	AK        []byte          `json:"ak"`
	Quote     Quote           `json:"quote"`
	EventLog  []byte          `json:"event_log,omitempty"` // as PackLog makes it; no signature covers it
}

// Digest is the qualifying data of the quote.
func (a *Attestation) Digest() []byte {
	h := sha256.New()
	h.Write([]byte(UseAttest))
	h.Write(a.ID)
	h.Write(Encode(a.Challenge))
	return h.Sum(nil)
}

// Open checks the sizes of an attestation, and that the AK in it made the quote. The
// record determines whose AK it is.
func (a *Attestation) Open() error {
	if len(a.ID) != sha256.Size || len(a.EventLog) > MaxPackedLog || len(a.EventLog) > 0 && !a.Challenge.EventLog {
		return Fail(ErrMalformed, "attestation")
	}
	if err := checkParts(a.AK, a.Quote.Attest, a.Quote.Signature); err != nil {
		return err
	}
	ak, err := ParsePublic(a.AK)
	if err != nil {
		return err
	}
	return CheckQuote(ak, a.Quote, a.Digest())
}
