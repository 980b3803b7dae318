package proof

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
)

// MaxMessage is the largest message in bytes, in either direction: a proof with an event
// log. Any other message has at most [MaxPlain] bytes.
const (
	MaxMessage = MaxPlain + MaxPackedLog*3/2 // in base64
	MaxPlain   = 64 << 10
)

// The version and the limits of messages.
const (
	Version         = 1
	MaxCertificates = 8 // the EK's own and those above it
	maxKeys         = 2
	MaxPart         = 8 << 10 // bytes of any part of a message
	SecretSize      = 32      // bytes of the secret in a challenge
)

// The types of messages, in the order in which they are sent.
const (
	TypeBegin     = "begin"     // device
	TypeChallenge = "challenge" // authority
	TypeProof     = "proof"     // device
	TypeResult    = "result"    // authority, instead of either answer
)

// A Begin names the keys of a device. Public areas are a TPMT_PUBLIC (TPM 2.0 Library,
// Part 2, clause 12.2.4), certificates are DER.
type Begin struct {
	Type           string   `json:"type"`
	Version        int      `json:"version"`
	EKCertificates [][]byte `json:"ek_certificates,omitempty"` // the EK's own first
	EK             []byte   `json:"ek"`
	AK             []byte   `json:"ak"`
	Keys           [][]byte `json:"keys"`                // LDevIDs
	EventLog       bool     `json:"event_log,omitempty"` // it has one, for whoever asks
}

// A Challenge has a credential that only a TPM with both the EK and the AK can open.
// The authority does not store it: MAC covers the rest and the begin message.
type Challenge struct {
	Type       string `json:"type"`
	Version    int    `json:"version"`
	Nonce      []byte `json:"nonce"`
	Issued     int64  `json:"issued"`     // nanoseconds since 1970, rising for each EK
	Credential []byte `json:"credential"` // TPMS_ID_OBJECT
	Seed       []byte `json:"seed"`       // TPM2B_ENCRYPTED_SECRET, its contents
	MAC        []byte `json:"mac"`
	EventLog   bool   `json:"event_log,omitempty"` // it shall be in the proof
}

// A Proof is the complete evidence, including the earlier messages.
type Proof struct {
	Type      string     `json:"type"`
	Version   int        `json:"version"`
	Begin     Begin      `json:"begin"`
	Challenge Challenge  `json:"challenge"`
	Secret    []byte     `json:"secret"` // that the credential held
	Keys      []KeyProof `json:"keys"`   // in the order of Begin.Keys
	Renewal   *Renewal   `json:"renewal,omitempty"`
	Quote     *Quote     `json:"quote,omitempty"`

	Device   *DeviceProof `json:"device,omitempty"`
	EventLog []byte       `json:"event_log,omitempty"` // as PackLog makes it; no signature covers it
}

// A KeyProof is the result of TPM2_Certify for a key by the AK, and a PKCS #10 request
// that the key signed (RFC 2986).
type KeyProof struct {
	Attest    []byte `json:"attest"`    // TPMS_ATTEST
	Signature []byte `json:"signature"` // TPMT_SIGNATURE
	Request   []byte `json:"request"`
}

// A Renewal is the signature by which the enrolled key vouches for the new ones.
type Renewal struct {
	Key       []byte `json:"key"`       // its TPMT_PUBLIC
	Signature []byte `json:"signature"` // over the digest of the proof: ASN.1 DER, or PKCS #1 v1.5
}

// A Quote is the result of TPM2_Quote by the AK, and the values of the PCRs.
type Quote struct {
	Attest    []byte `json:"attest"`
	Signature []byte `json:"signature"`
	PCRs      []PCR  `json:"pcrs"` // of the SHA-256 bank, by rising index
}

// A PCR is a platform configuration register and its value, SHA-256.
type PCR struct {
	Index  uint   `json:"index"`
	Digest []byte `json:"digest"`
}

// A Result ends an exchange.
type Result struct {
	Type         string   `json:"type"`
	Version      int      `json:"version"`
	State        string   `json:"state"` // enrolled, or the word of a fault
	ID           string   `json:"id,omitempty"`
	Name         string   `json:"name,omitempty"`
	Certificates [][]byte `json:"certificates,omitempty"` // in the order of the keys
	CA           []byte   `json:"ca,omitempty"`
	Detail       string   `json:"detail,omitempty"`
}

// StateEnrolled is the state in the result for an enrolled device.
const StateEnrolled = "enrolled"

// MessageType returns the type of a message, without checking the rest of it.
func MessageType(data []byte) (string, error) {
	if len(data) > MaxMessage {
		return "", Fail(ErrMalformed, "%d bytes, but only %d are allowed", len(data), MaxMessage)
	}
	var head struct {
		Type    string `json:"type"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return "", Fail(ErrMalformed, "not a JSON object")
	}
	if head.Version != Version {
		return "", Fail(ErrMalformed, "version %d, but this side only supports version %d", head.Version, Version)
	}
	return head.Type, nil
}

// Parse reads a message in its canonical form, so that a signature over the parsed
// message is a signature over its bytes.
func Parse[T any](data []byte, kind string) (T, error) {
	var v T
	if got, err := MessageType(data); err != nil {
		return v, err
	} else if got != kind {
		return v, Fail(ErrMalformed, "type %q where %q is expected", Shorten(got), kind)
	}
	return v, decode(data, &v)
}

// CheckPlain refuses a message longer than one without an event log may be.
func CheckPlain(data []byte) error {
	if len(data) > MaxPlain {
		return Fail(ErrMalformed, "%d bytes, but only %d are allowed", len(data), MaxPlain)
	}
	return nil
}

func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Fail(ErrMalformed, "does not decode")
	}
	again, err := json.Marshal(v)
	if err != nil || !bytes.Equal(again, data) {
		return Fail(ErrMalformed, "not in its canonical form")
	}
	return nil
}

// Encode writes a message in its canonical form.
func Encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}

func (b *Begin) check() error {
	if len(b.EKCertificates) > MaxCertificates || len(b.Keys) == 0 || len(b.Keys) > maxKeys {
		return Fail(ErrMalformed, "wrong number of certificates or keys")
	}
	if b.Type != TypeBegin || b.Version != Version {
		return Fail(ErrMalformed, "not a begin message")
	}
	return checkParts(append(append([][]byte{b.EK, b.AK}, b.Keys...), b.EKCertificates...)...)
}

func (p *Proof) check() error {
	if err := p.Begin.check(); err != nil {
		return err
	}
	if len(p.EventLog) > 0 && !p.Challenge.EventLog || len(p.EventLog) > MaxPackedLog {
		return Fail(ErrMalformed, "an event log of %d bytes", len(p.EventLog))
	}
	if len(p.Keys) != len(p.Begin.Keys) {
		return Fail(ErrMalformed, "%d keys and %d proofs of them", len(p.Begin.Keys), len(p.Keys))
	}
	for _, k := range p.Keys {
		if err := checkParts(k.Attest, k.Signature, k.Request); err != nil {
			return err
		}
	}
	return nil
}

func checkParts(parts ...[]byte) error {
	for _, p := range parts {
		if len(p) == 0 || len(p) > MaxPart {
			return Fail(ErrMalformed, "a part of %d bytes", len(p))
		}
	}
	return nil
}

// The uses of a digest. A signature for one use is not valid for another.
const (
	UseCertify = "msl-hsm tpm enrolment 1: certify"
	UseQuote   = "msl-hsm tpm enrolment 1: quote"
	UseRenewal = "msl-hsm tpm enrolment 1: renewal"
)

// Digest is the qualifying data over which the TPM signs: a hash of the earlier messages,
// and of the secret that only the TPM with the EK could know.
func (p *Proof) Digest(use string) []byte {
	b, c := sha256.Sum256(Encode(p.Begin)), sha256.Sum256(Encode(p.Challenge))
	h := sha256.New()
	h.Write([]byte(use))
	h.Write(b[:])
	h.Write(c[:])
	h.Write(p.Secret)
	return h.Sum(nil)
}

// ParseResult reads a result. If it says that the device was not enrolled, that is the
// error.
func ParseResult(data []byte) (Result, error) {
	r, err := Parse[Result](data, TypeResult)
	if err != nil {
		return r, err
	}
	if r.State != StateEnrolled {
		return r, Fail(faultOf(r.State), "%s", shortenTo(maxDetail, r.Detail))
	}
	return r, nil
}

// ErrorResult writes the result that informs a device of an error.
func ErrorResult(id string, err error) []byte {
	r := Result{Type: TypeResult, Version: Version, State: FaultWord(err), ID: id}
	if kind := faultOf(r.State); kind != ErrInternal {
		r.Detail = shortenTo(maxDetail, strings.TrimPrefix(err.Error(), fmt.Sprintf("enroll: %v: ", kind)))
	} else {
		r.Detail = "its log says why"
	}
	return Encode(r)
}

// maxDetail is how many characters of a reason a device receives: enough for the values
// of several PCRs and the events behind them.
const maxDetail = 1000

// Shorten makes a peer's text safe to show: at most 300 characters of printable ASCII.
func Shorten(s string) string { return shortenTo(300, s) }

func shortenTo(most int, s string) string {
	out := make([]rune, 0, min(len(s), most))
	for _, r := range s {
		if len(out) == most {
			return string(out) + "..."
		}
		if r < ' ' || r > '~' {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}
