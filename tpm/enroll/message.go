package enroll

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
)

// MaxMessage is the largest message in bytes, in either direction.
const MaxMessage = 64 << 10

const (
	messageVersion  = 1
	maxCertificates = 8 // the EK's own and those above it
	maxKeys         = 2
	maxPart         = 8 << 10 // of any one part of a message
	secretSize      = 32
)

// The types of messages, in the order in which they are sent.
const (
	typeBegin     = "begin"     // device
	typeChallenge = "challenge" // authority
	typeProof     = "proof"     // device
	typeResult    = "result"    // authority, instead of either answer
)

// begin names the keys. Public areas are a TPMT_PUBLIC (TPM 2.0 Library part 2,
// section 12.2.4), certificates are DER.
type begin struct {
	Type           string   `json:"type"`
	Version        int      `json:"version"`
	EKCertificates [][]byte `json:"ek_certificates,omitempty"` // the EK's own first
	EK             []byte   `json:"ek"`
	AK             []byte   `json:"ak"`
	Keys           [][]byte `json:"keys"` // LDevIDs
}

// challenge can be opened by the TPM that has both the EK and the AK. The
// authority keeps nothing of it: MAC covers the rest and the begin message.
type challenge struct {
	Type       string `json:"type"`
	Version    int    `json:"version"`
	Nonce      []byte `json:"nonce"`
	Issued     int64  `json:"issued"`     // nanoseconds since 1970, rising for each EK
	Credential []byte `json:"credential"` // TPMS_ID_OBJECT
	Seed       []byte `json:"seed"`       // TPM2B_ENCRYPTED_SECRET, its contents
	MAC        []byte `json:"mac"`
}

// proof is the whole evidence: it repeats what was said before.
type proof struct {
	Type      string     `json:"type"`
	Version   int        `json:"version"`
	Begin     begin      `json:"begin"`
	Challenge challenge  `json:"challenge"`
	Secret    []byte     `json:"secret"` // out of the credential
	Keys      []keyProof `json:"keys"`   // in the order of Begin.Keys
	Renewal   *renewal   `json:"renewal,omitempty"`
	Quote     *quote     `json:"quote,omitempty"`
}

// keyProof is TPM2_Certify of a key by the AK, and a PKCS #10 request that the
// key signed (RFC 2986).
type keyProof struct {
	Attest    []byte `json:"attest"`    // TPMS_ATTEST
	Signature []byte `json:"signature"` // TPMT_SIGNATURE
	Request   []byte `json:"request"`
}

// renewal is the word of the key that was enrolled before.
type renewal struct {
	Key       []byte `json:"key"`       // its TPMT_PUBLIC
	Signature []byte `json:"signature"` // over the digest of the proof: ASN.1 DER, or PKCS #1 v1.5
}

// quote is TPM2_Quote by the AK with the values that it is about.
type quote struct {
	Attest    []byte     `json:"attest"`
	Signature []byte     `json:"signature"`
	PCRs      []pcrValue `json:"pcrs"` // of the SHA-256 bank, by rising index
}

type pcrValue struct {
	Index  uint   `json:"index"`
	Digest []byte `json:"digest"`
}

// result is the end of an exchange.
type result struct {
	Type         string   `json:"type"`
	Version      int      `json:"version"`
	State        string   `json:"state"` // enrolled, or the word of a fault
	ID           string   `json:"id,omitempty"`
	Name         string   `json:"name,omitempty"`
	Certificates [][]byte `json:"certificates,omitempty"` // in the order of the keys
	CA           []byte   `json:"ca,omitempty"`
	Detail       string   `json:"detail,omitempty"`
}

const stateEnrolled = "enrolled"

// messageType tells how to read a message. Only the reader checks it.
func messageType(data []byte) (string, error) {
	if len(data) > MaxMessage {
		return "", fail(ErrMalformed, "%d bytes, and %d are allowed", len(data), MaxMessage)
	}
	var head struct {
		Type    string `json:"type"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return "", fail(ErrMalformed, "not a JSON object")
	}
	if head.Version != messageVersion {
		return "", fail(ErrMalformed, "version %d, and this side knows %d", head.Version, messageVersion)
	}
	return head.Type, nil
}

// parse reads a message in its one form: a signature over what was parsed is
// then a signature over the bytes.
func parse[T any](data []byte, kind string) (T, error) {
	var v T
	if got, err := messageType(data); err != nil {
		return v, err
	} else if got != kind {
		return v, fail(ErrMalformed, "type %q where %q is expected", shorten(got), kind)
	}
	return v, decode(data, &v)
}

func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fail(ErrMalformed, "does not decode")
	}
	again, err := json.Marshal(v)
	if err != nil || !bytes.Equal(again, data) {
		return fail(ErrMalformed, "not in its canonical form")
	}
	return nil
}

// encode writes a message. Every type of message can be written.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}

func (b *begin) check() error {
	if len(b.EKCertificates) > maxCertificates || len(b.Keys) == 0 || len(b.Keys) > maxKeys {
		return fail(ErrMalformed, "wrong number of certificates or keys")
	}
	if b.Type != typeBegin || b.Version != messageVersion {
		return fail(ErrMalformed, "not a begin message")
	}
	return checkParts(append(append([][]byte{b.EK, b.AK}, b.Keys...), b.EKCertificates...)...)
}

func (p *proof) check() error {
	if err := p.Begin.check(); err != nil {
		return err
	}
	if len(p.Keys) != len(p.Begin.Keys) {
		return fail(ErrMalformed, "%d keys and %d proofs of them", len(p.Begin.Keys), len(p.Keys))
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
		if len(p) == 0 || len(p) > maxPart {
			return fail(ErrMalformed, "a part of %d bytes", len(p))
		}
	}
	return nil
}

// The uses of a digest: a signature for one use is none for another.
const (
	useCertify = "msl-hsm tpm enrolment 1: certify"
	useQuote   = "msl-hsm tpm enrolment 1: quote"
	useRenewal = "msl-hsm tpm enrolment 1: renewal"
)

// digest is what the TPM signs: everything that was said before, and the secret
// that only the TPM with the EK could know.
func (p *proof) digest(use string) []byte {
	b, c := sha256.Sum256(encode(p.Begin)), sha256.Sum256(encode(p.Challenge))
	h := sha256.New()
	h.Write([]byte(use))
	h.Write(b[:])
	h.Write(c[:])
	h.Write(p.Secret)
	return h.Sum(nil)
}

// parseResult reads the end of an exchange, as its error if it is not a good
// one.
func parseResult(data []byte) (result, error) {
	r, err := parse[result](data, typeResult)
	if err != nil {
		return r, err
	}
	if r.State != stateEnrolled {
		return r, fail(faultOf(r.State), "%s", shorten(r.Detail))
	}
	return r, nil
}

func errorResult(id string, err error) []byte {
	r := result{Type: typeResult, Version: messageVersion, State: faultWord(err), ID: id}
	if kind := faultOf(r.State); kind != ErrInternal {
		r.Detail = shorten(strings.TrimPrefix(err.Error(), fmt.Sprintf("enroll: %v: ", kind)))
	} else {
		r.Detail = "its log tells why"
	}
	return encode(r)
}

// shorten makes a peer's text fit for a screen.
func shorten(s string) string {
	const most = 300
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
