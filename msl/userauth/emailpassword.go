package userauth

import (
	"bytes"
	"context"
	"strings"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// EmailPassword is the scheme EMAIL_PASSWORD (MSL wiki, "Email/Password").
type EmailPassword struct {
	// Verify returns the name of the user with that e-mail address and password. A wrong
	// pair is msl.ErrEmailPasswordIncorrect. The password is overwritten when Verify
	// returns.
	Verify func(ctx context.Context, email string, password []byte) (user string, err error)

	// Find returns the name of the user with that e-mail address, or "" if no user who
	// may log in has it. A server counts wrong guesses by that name. If Find is nil, it
	// counts them by the address in lower case.
	Find func(ctx context.Context, email string) (user string, err error)
}

const opData = "user authentication data"

var _ msl.Guessable = (*EmailPassword)(nil)

// Scheme returns EMAIL_PASSWORD.
func (*EmailPassword) Scheme() string { return "EMAIL_PASSWORD" }

// Check checks the form of authdata.
func (*EmailPassword) Check(authdata []byte) error {
	_, password, err := parseEmailPassword(authdata)
	clear(password)
	return err
}

// parseEmailPassword returns the parts of authdata. The caller wipes the password.
func parseEmailPassword(authdata []byte) (email string, password []byte, err error) {
	f := wire.ParseFields(authdata)
	email, password = f.String("email"), f.Secret("password")
	return email, password, malformed(f)
}

// malformed turns the first failure of a reader of authdata into a parse error.
func malformed(f *wire.Fields) error {
	if err := f.Err(); err != nil {
		return msl.Failure(msl.ErrMSLParseError, opData, err)
	}
	return nil
}

// Claimed returns the user of the e-mail address, or the address itself if no user has
// it. A blank address or password is error 5005.
func (e *EmailPassword) Claimed(ctx context.Context, authdata []byte) (user string, known bool, err error) {
	email, password, err := e.parse(authdata)
	clear(password)
	if err != nil || e.Find == nil {
		return email, err == nil, err
	}
	if user, err = e.Find(ctx, email); err != nil || user == "" {
		return email, false, err
	}
	return user, true, nil
}

// Authenticate refuses a blank address or password with error 5005 and a wrong pair with
// 5007.
func (e *EmailPassword) Authenticate(ctx context.Context, _ string, authdata []byte) (string, error) {
	email, password, err := e.parse(authdata)
	if err != nil {
		return "", err
	}
	defer clear(password)
	return e.Verify(ctx, email, password)
}

// parse reads a pair and refuses blanks. The caller wipes the password.
func (e *EmailPassword) parse(authdata []byte) (email string, password []byte, err error) {
	if email, password, err = parseEmailPassword(authdata); err != nil {
		return "", nil, err
	}
	if strings.TrimSpace(email) == "" || len(bytes.TrimSpace(password)) == 0 {
		clear(password)
		return "", nil, msl.Failure(msl.ErrEmailPasswordBlank, e.Scheme(), nil)
	}
	return email, password, nil
}

// EmailPasswordData returns a client's proof of a user by this scheme. It holds the
// password in the clear until it is garbage-collected; the caller wipes its own copy.
func EmailPasswordData(email string, password []byte) *msl.UserAuthData {
	e := wire.NewEncoder(64 + 6*(len(email)+len(password))) // escaped; it must not grow
	e.Begin()
	e.String("email", email)
	e.Secret("password", password)
	e.End()
	return &msl.UserAuthData{Scheme: "EMAIL_PASSWORD", AuthData: e.Encoded()}
}
