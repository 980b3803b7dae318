package userauth

import (
	"bytes"
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// UserIDToken is the scheme USER_ID_TOKEN (MSL wiki, "User ID Token"): the user of an
// earlier session of the same entity, proven by the tokens of that session. An expired
// user ID token is accepted as long as the issuer would renew it.
type UserIDToken struct {
	// Issuer opens the tokens. If Tokens is set, it opens master tokens instead: a
	// Server's OpenMasterToken accepts only those in use.
	Issuer *msl.Issuer
	Tokens func(*msl.MasterToken) (*msl.Session, error)

	// Permitted reports whether this user of this entity may use the scheme. It is called
	// before Revoked, in the protocol's order; a Server's PermitUser is called after it.
	// Nil permits all. Names are in the form of msl.CanonicalName.
	Permitted func(ctx context.Context, identity, user string) (bool, error)
	// Revoked returns an error with an msl.Code if the user of the entity is revoked,
	// like a State's Revoked. Any other error means that this could not be determined.
	// Nil leaves the check to the server, which makes it in any case.
	Revoked func(ctx context.Context, identity, user string) error
	// Dates returns from when on the tokens of the user count; a State may implement it.
	// Nil accepts tokens of any age.
	Dates msl.TokenDates
}

// Scheme returns USER_ID_TOKEN.
func (*UserIDToken) Scheme() string { return "USER_ID_TOKEN" }

// Check checks the form. A malformed master token is error 5024; a user ID token that
// is malformed or not bound to it is 5011.
func (*UserIDToken) Check(authdata []byte) error {
	_, _, err := parseTokens(authdata)
	return err
}

func parseTokens(authdata []byte) (*msl.MasterToken, *msl.UserIDToken, error) {
	f := wire.ParseFields(authdata)
	master, user := f.Object("mastertoken"), f.Object("useridtoken")
	if err := malformed(f); err != nil {
		return nil, nil, err
	}
	mt, err := msl.ParseMasterToken(master.Raw())
	if err != nil {
		return nil, nil, msl.Failure(msl.ErrUserAuthMasterTokenInvalid, opData, err)
	}
	uit, err := msl.ParseUserIDToken(user.Raw())
	if err == nil && uit.MasterToken != mt.SerialNumber {
		err = msl.ErrUserIDTokenMasterTokenMismatch
	}
	if err != nil {
		return nil, nil, msl.Failure(msl.ErrUserAuthUserIDTokenInvalid, opData, err)
	}
	return mt, uit, nil
}

// Authenticate opens the tokens. The error is 5025 for a master token of another issuer,
// 5032 for one of another entity, 5021 for a user ID token of another issuer, 5041 for a
// user who may not use the scheme, and 5043 if it is unknown whether the user is revoked.
func (u *UserIDToken) Authenticate(ctx context.Context, identity string, authdata []byte) (string, error) {
	mt, uit, err := parseTokens(bytes.Clone(authdata)) // the functions that open tokens may keep the bytes
	if err != nil {
		return "", err
	}
	owner, err := u.owner(mt)
	if err != nil {
		return "", msl.Failure(msl.ErrUserAuthMasterTokenNotDecrypted, u.Scheme(), err)
	}
	if msl.CanonicalName(owner) != msl.CanonicalName(identity) {
		return "", msl.Failure(msl.ErrUserAuthEntityMismatch, u.Scheme(), nil)
	}
	user, err := u.Issuer.OpenUser(uit)
	if err != nil {
		return "", msl.Failure(msl.ErrUserAuthUserIDTokenNotDecrypted, u.Scheme(), err)
	}
	if err := u.permit(ctx, identity, user); err != nil {
		return "", err
	}
	if err := u.revoked(ctx, owner, user); err != nil { // its own spelling may be refused
		return "", err
	}
	if err := u.counts(ctx, identity, user, uit); err != nil {
		return "", err
	}
	return user, nil
}

// owner returns the entity named in a master token.
func (u *UserIDToken) owner(mt *msl.MasterToken) (string, error) {
	open := u.Tokens
	if open == nil {
		open = u.Issuer.Open
	}
	session, err := open(mt)
	if err != nil {
		return "", err
	}
	defer session.Release()
	return session.Identity, nil
}

func (u *UserIDToken) permit(ctx context.Context, identity, user string) error {
	if u.Permitted == nil {
		return nil
	}
	ok, err := u.Permitted(ctx, msl.CanonicalName(identity), msl.CanonicalName(user))
	if err != nil {
		return msl.Failure(msl.ErrInternalException, "user directory", err)
	}
	if !ok {
		return msl.Failure(msl.ErrUserAuthEntityUserIncorrectData, u.Scheme(), nil)
	}
	return nil
}

func (u *UserIDToken) revoked(ctx context.Context, identity, user string) error {
	if u.Revoked == nil {
		return nil
	}
	err := u.Revoked(ctx, identity, user)
	var verdict msl.Code
	if err == nil || errors.As(err, &verdict) {
		return err
	}
	return msl.Failure(msl.ErrUserAuthUserIDTokenRevokeCheckError, u.Scheme(), err)
}

// counts refuses a token that is older than the user's registration or password, or
// expired too long ago.
func (u *UserIDToken) counts(ctx context.Context, identity, user string, t *msl.UserIDToken) error {
	if err := u.Issuer.CheckUser(t); err != nil || u.Dates == nil {
		return err
	}
	_, since, err := u.Dates.CountSince(ctx, identity, user)
	if err != nil {
		return msl.Failure(msl.ErrUserAuthUserIDTokenRevokeCheckError, u.Scheme(), err)
	}
	if u.Issuer.IssuedUser(t).Before(since) {
		return msl.Failure(msl.ErrUserIDTokenRevoked, u.Scheme(), errors.New("it was issued before the tokens of this user were made invalid"))
	}
	return nil
}

// UserIDTokenData returns a client's proof of a user by this scheme, made from the
// encoded tokens of an earlier session.
func UserIDTokenData(masterToken, userIDToken []byte) *msl.UserAuthData {
	e := wire.NewEncoder(64 + len(masterToken) + len(userIDToken))
	e.Begin()
	e.Raw("mastertoken", masterToken)
	e.Raw("useridtoken", userIDToken)
	e.End()
	return &msl.UserAuthData{Scheme: "USER_ID_TOKEN", AuthData: e.Encoded()}
}
