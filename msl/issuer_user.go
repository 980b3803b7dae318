package msl

import (
	"cmp"
	"errors"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// IssueUser makes a user ID token for user, bound to mt: a new one, or the
// renewal of old with its serial number.
func (i *Issuer) IssueUser(user string, mt *MasterToken, old *UserIDToken) (*UserIDToken, error) {
	return i.issueUserAt(i.now(), user, mt, old)
}

func (i *Issuer) issueUserAt(at time.Time, user string, mt *MasterToken, old *UserIDToken) (t *UserIDToken, err error) {
	t = &UserIDToken{
		RenewalWindow: at.Add(cmp.Or(i.UserRenewAfter, time.Hour)).Truncate(time.Second),
		Expiration:    at.Add(i.userLifetime()).Truncate(time.Second),
		MasterToken:   mt.SerialNumber,
	}
	if old != nil {
		t.SerialNumber = old.SerialNumber
	} else if t.SerialNumber, err = randomNumber(i.Rand); err != nil {
		return nil, err
	}
	e := wire.NewEncoder(64 + len(user))
	e.Begin()
	e.String("identity", user)
	e.End()
	err = i.issuing(func(key SymmetricKey, _ uint32) (err error) {
		if t.data, err = key.Encrypt(e.Encoded()); err == nil {
			t.sealed, err = signToken(key, t.encode())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// encode returns the part of a token that is signed.
func (t *UserIDToken) encode() []byte {
	e := wire.NewEncoder(128 + len(t.data)*4/3)
	e.Begin()
	e.Int("renewalwindow", t.RenewalWindow.Unix())
	e.Int("expiration", t.Expiration.Unix())
	e.Int("mtserialnumber", t.MasterToken)
	e.Int("serialnumber", t.SerialNumber)
	e.Bytes("userdata", t.data)
	e.End()
	return e.Encoded()
}

// CheckUser refuses a user ID token that expired too long ago to be renewed
// (UserRenewExpired) with [ErrUserIDTokenRevoked], which makes its holder log in again.
func (i *Issuer) CheckUser(t *UserIDToken) error {
	if i.UserRenewExpired == 0 || !i.now().After(t.Expiration.Add(i.UserRenewExpired)) {
		return nil
	}
	return fail(ErrUserIDTokenRevoked, "user id token", errors.New("it expired too long ago"))
}

// OpenUser verifies a user ID token and returns the user it names. The error for
// a token of another issuer is [ErrUserIDTokenNotDecrypted].
func (i *Issuer) OpenUser(t *UserIDToken) (string, error) {
	const op = "open user id token"
	key, _, err := i.verify(t.sealed, t.data)
	if err == errSignature {
		return "", fail(ErrUserIDTokenNotDecrypted, op, nil)
	}
	if err != nil {
		return "", err
	}
	content, err := decryptOwn(key, t.data)
	if err != nil {
		return "", err
	}
	f := wire.ParseFields(content)
	user := f.String("identity")
	if f.Has("issuerdata") {
		f.Object("issuerdata")
	}
	if f.Err() != nil {
		return "", fail(ErrUserIDTokenUserDataParseError, op, f.Err())
	}
	if user == "" {
		return "", fail(ErrUserIDTokenIdentityInvalid, op, nil)
	}
	return user, nil
}
