package userauth

import (
	"context"
	"strings"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// EmailPassword is the scheme EMAIL_PASSWORD (MSL wiki, "Email/Password").
type EmailPassword struct {
	// Verify returns the name of the user that has this password. A pair that
	// is wrong is msl.ErrEmailPasswordIncorrect.
	Verify func(ctx context.Context, email string, password []byte) (user string, err error)
}

// Scheme returns EMAIL_PASSWORD.
func (*EmailPassword) Scheme() string { return "EMAIL_PASSWORD" }

// Check judges the form.
func (*EmailPassword) Check(authdata []byte) error {
	_, _, err := parseEmailPassword(authdata)
	return err
}

func parseEmailPassword(authdata []byte) (email, password string, err error) {
	o, err := wire.Parse(authdata, wire.Limits{})
	if err == nil {
		if email, err = o.String("email"); err == nil {
			password, err = o.String("password")
		}
	}
	if err != nil {
		return "", "", msl.Failure(msl.ErrMSLParseError, "user authentication data", err)
	}
	return email, password, nil
}

// Authenticate refuses blanks with 5005 and a wrong pair with 5007.
func (e *EmailPassword) Authenticate(ctx context.Context, _ string, authdata []byte) (string, error) {
	email, password, err := parseEmailPassword(authdata)
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(email) == "" || strings.TrimSpace(password) == "" {
		return "", msl.Failure(msl.ErrEmailPasswordBlank, e.Scheme(), nil)
	}
	secret := []byte(password)
	defer clear(secret)
	return e.Verify(ctx, email, secret)
}

// EmailPasswordData is how a client proves a user by this scheme.
func EmailPasswordData(email string, password []byte) *msl.UserAuthData {
	e := wire.NewEncoder(64 + len(email) + len(password))
	e.Begin()
	e.String("email", email)
	e.String("password", string(password))
	e.End()
	return &msl.UserAuthData{Scheme: "EMAIL_PASSWORD", AuthData: e.Encoded()}
}
