package msl

import (
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A UserIDToken is a user ID token as received, not opened. It names a user of the entity
// whose master token it is bound to by serial number.
type UserIDToken struct {
	RenewalWindow time.Time
	Expiration    time.Time
	SerialNumber  int64
	MasterToken   int64 // serial number of the master token

	sealed signedToken
	data   []byte // userdata, a ciphertext envelope
}

// parseUserIDToken makes the checks that need no key, except the last: that the token is
// bound to the right master token.
func parseUserIDToken(o wire.Object) (*UserIDToken, error) {
	sealed, err := parseSealedUser(o)
	if err != nil {
		return nil, err
	}
	return sealed.user()
}

// parseSealedUser reads the outer part of a user ID token, and user its inner part.
func parseSealedUser(o wire.Object) (signedToken, error) {
	return parseSignedToken(o, "user id token", ErrUserIDTokenTokenDataMissing)
}

func (sealed signedToken) user() (*UserIDToken, error) {
	const op = "user id token"
	data, err := sealed.parseData()
	if err != nil {
		return nil, fail(ErrUserIDTokenTokenDataParseError, op, err)
	}
	f := wire.FieldsOf(data)
	window, expiration := f.Int("renewalwindow"), f.Int("expiration")
	t := &UserIDToken{
		RenewalWindow: seconds(window),
		Expiration:    seconds(expiration),
		MasterToken:   f.Int("mtserialnumber"),
		SerialNumber:  f.Int("serialnumber"),
		sealed:        sealed,
		data:          f.Bytes("userdata"),
	}
	switch {
	case f.Err() != nil:
		return nil, fail(ErrUserIDTokenTokenDataParseError, op, f.Err())
	case expiration < window:
		return nil, fail(ErrUserIDTokenExpiresBeforeRenewal, op, nil)
	case !inRange(t.MasterToken):
		return nil, fail(ErrUserIDTokenMasterTokenSerialNumberOutOfRange, op, nil)
	case !inRange(t.SerialNumber):
		return nil, fail(ErrUserIDTokenSerialNumberOutOfRange, op, nil)
	case len(t.data) == 0:
		return nil, fail(ErrUserIDTokenUserDataMissing, op, nil)
	}
	return t, nil
}

// ParseUserIDToken reads an encoded user ID token.
func ParseUserIDToken(b []byte) (*UserIDToken, error) {
	o, err := wire.Parse(b, wire.Limits{})
	if err != nil {
		return nil, fail(ErrMSLParseError, "user id token", err)
	}
	return parseUserIDToken(o)
}

// Bytes returns the token as it was received.
func (t *UserIDToken) Bytes() []byte { return t.sealed.raw }

func (t *UserIDToken) renewable(now time.Time) bool { return !t.RenewalWindow.After(now) }
func (t *UserIDToken) expired(now time.Time) bool   { return !t.Expiration.After(now) }

// boundTo refuses a token of another master token, or of none.
func (t *UserIDToken) boundTo(mt *MasterToken) error {
	if mt == nil || mt.SerialNumber != t.MasterToken {
		return fail(ErrUserIDTokenMasterTokenMismatch, "user id token", nil)
	}
	return nil
}
