package msl

import (
	"bytes"
	"crypto/sha256"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A MasterToken is a master token as received, not opened, with only what its holder can
// read. An [Issuer] makes a [Session] from a token that it issued.
type MasterToken struct {
	RenewalWindow  time.Time // from then on it is renewed on request
	Expiration     time.Time
	SequenceNumber int64 // increases with each renewal
	SerialNumber   int64 // stays the same through all renewals

	sealed signedToken
	data   []byte // sessiondata, a ciphertext envelope
}

// A signedToken is the common form of all tokens: the bytes of an inner object and a
// signature over exactly those bytes. A token is sent again as it was received.
type signedToken struct {
	raw       []byte // the whole object, encoded
	tokenData []byte
	signature []byte
	known     tokenHash // zero if not requested
}

// parseSignedToken reads the outer form; missing is the code for empty tokendata.
func parseSignedToken(o wire.Object, op string, missing Code) (signedToken, error) {
	raw := bytes.Clone(o.Raw())
	t, _, err := readSignedToken(make([]byte, 0, len(raw)), o, op, missing)
	t.raw = raw
	return t, err
}

// readSignedToken is parseSignedToken with the parts in the memory of o and in dst, which
// it returns.
func readSignedToken(dst []byte, o wire.Object, op string, missing Code) (signedToken, []byte, error) {
	f, t := wire.FieldsOf(o), signedToken{raw: o.Raw()}
	dst = f.AppendBytes(dst, "tokendata")
	if err := malformed(f, op); err != nil {
		return t, dst, err
	}
	size := len(dst)
	if size == 0 {
		return t, dst, fail(missing, op, nil)
	}
	dst = f.AppendBytes(dst, "signature")
	t.tokenData, t.signature = dst[:size:size], dst[size:]
	return t, dst, malformed(f, op)
}

func signToken(p Protector, tokenData []byte) (signedToken, error) {
	signature, err := p.Sign(tokenData)
	if err != nil {
		return signedToken{}, err
	}
	e := wire.NewEncoder(64 + (len(tokenData)+len(signature))*3/2)
	e.Begin()
	e.Bytes("tokendata", tokenData)
	e.Bytes("signature", signature)
	e.End()
	return signedToken{raw: e.Encoded(), tokenData: tokenData, signature: signature}, nil
}

// hash returns the hash of the signed bytes and the signature. It does not depend on the
// object's other members or on their encoding.
func (t signedToken) hash() tokenHash {
	if t.known != (tokenHash{}) {
		return t.known
	}
	var few [3 * sha256.Size]byte // usually enough
	data := sha256.Sum256(t.tokenData)
	return sha256.Sum256(append(append(few[:0], data[:]...), bareSignature(t.signature, wire.Limits{})...))
}

func (t signedToken) parseData() (wire.Object, error) {
	return wire.Parse(t.tokenData, wire.Limits{Object: len(t.tokenData)})
}

const opMaster = "master token"

// parseMasterToken makes the checks that need no key, in protocol order.
func parseMasterToken(o wire.Object) (*MasterToken, error) {
	const op = opMaster
	sealed, err := parseSignedToken(o, op, ErrMasterTokenTokenDataMissing)
	if err != nil {
		return nil, err
	}
	data, err := sealed.parseData()
	if err != nil {
		return nil, fail(ErrMasterTokenTokenDataParseError, op, err)
	}
	f := wire.FieldsOf(data)
	window, expiration := f.Int("renewalwindow"), f.Int("expiration")
	t := &MasterToken{
		RenewalWindow:  seconds(window),
		Expiration:     seconds(expiration),
		SequenceNumber: f.Int("sequencenumber"),
		SerialNumber:   f.Int("serialnumber"),
		sealed:         sealed,
		data:           f.Bytes("sessiondata"),
	}
	switch {
	case f.Err() != nil:
		return nil, fail(ErrMasterTokenTokenDataParseError, op, f.Err())
	case expiration < window:
		return nil, fail(ErrMasterTokenExpiresBeforeRenewal, op, nil)
	case !inRange(t.SequenceNumber):
		return nil, fail(ErrMasterTokenSequenceNumberOutOfRange, op, nil)
	case !inRange(t.SerialNumber):
		return nil, fail(ErrMasterTokenSerialNumberOutOfRange, op, nil)
	case len(t.data) == 0:
		return nil, fail(ErrMasterTokenSessionDataMissing, op, nil)
	}
	return t, nil
}

// ParseMasterToken reads an encoded master token.
func ParseMasterToken(b []byte) (*MasterToken, error) {
	o, err := wire.Parse(b, wire.Limits{})
	if err != nil {
		return nil, fail(ErrMSLParseError, "master token", err)
	}
	return parseMasterToken(o)
}

// whole returns the token with all readable fields, some of which a remembered session's
// token lacks.
func (t *MasterToken) whole() (*MasterToken, error) {
	if t.sealed.tokenData != nil {
		return t, nil
	}
	return ParseMasterToken(t.Bytes())
}

// Bytes returns the token as it was received.
func (t *MasterToken) Bytes() []byte { return t.sealed.raw }

// renewable reports whether the token is in its renewal window.
func (t *MasterToken) renewable(now time.Time) bool { return !t.RenewalWindow.After(now) }

func (t *MasterToken) expired(now time.Time) bool { return !t.Expiration.After(now) }

// NewerThan reports whether t was issued after u. Sequence numbers wrap: the
// first 127 numbers after the wrap are newer than the last before it.
func (t *MasterToken) NewerThan(u *MasterToken) bool {
	if t.SequenceNumber == u.SequenceNumber {
		return t.Expiration.After(u.Expiration)
	}
	if t.SequenceNumber > u.SequenceNumber {
		return u.SequenceNumber >= t.SequenceNumber-maxNumber+127
	}
	return t.SequenceNumber < u.SequenceNumber-maxNumber+127
}

// seconds converts a count of seconds since 1970, bounded to times that can be
// compared.
func seconds(n int64) time.Time {
	const bound = 1 << 55
	return time.Unix(max(-bound, min(n, bound)), 0)
}
