package userauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/msl-hsm/msl-hsm/msl"
)

// Bearer is an application's own user scheme: an access token issued to the user by
// some other service, and checked by a function. The server calls each of its methods.
type Bearer struct {
	// Verify returns the name of the user of an access token. For an invalid token, the
	// error is msl.ErrUserAuthVerificationFailed.
	Verify func(ctx context.Context, token string) (user string, err error)
}

// Scheme is the name on the wire. It must not be one of the protocol's.
func (*Bearer) Scheme() string { return "EXAMPLE_BEARER" }

// Check checks only the form: it runs before the checks for replay.
func (*Bearer) Check(authdata []byte) error {
	_, err := bearerToken(authdata)
	return err
}

// Authenticate runs last, for a message that passed every other check.
func (b *Bearer) Authenticate(ctx context.Context, identity string, authdata []byte) (string, error) {
	token, err := bearerToken(authdata)
	if err != nil {
		return "", err
	}
	return b.Verify(ctx, token)
}

func bearerToken(authdata []byte) (string, error) {
	var data struct{ Token string }
	err := json.Unmarshal(authdata, &data)
	if err == nil && data.Token == "" {
		err = errors.New("no token")
	}
	if err != nil {
		return "", msl.Failure(msl.ErrMSLParseError, "bearer token", err)
	}
	return data.Token, nil
}

// BearerData returns the result for a client's UserAuth function.
func BearerData(token string) *msl.UserAuthData {
	authdata, _ := json.Marshal(map[string]string{"token": token})
	return &msl.UserAuthData{Scheme: "EXAMPLE_BEARER", AuthData: authdata}
}

// An application's own scheme goes in the Users field of its Server.
func Example_bearer() {
	scheme := &Bearer{Verify: func(_ context.Context, token string) (string, error) {
		user, ok := strings.CutPrefix(token, "secret-of-")
		if !ok {
			return "", msl.ErrUserAuthVerificationFailed
		}
		return user, nil
	}}
	server := &msl.Server{Users: []msl.UserScheme{scheme}}

	for _, token := range []string{"secret-of-alice", "guess"} {
		proof := BearerData(token) // travels in an encrypted header
		user, err := server.Users[0].Authenticate(context.Background(), "device-1", proof.AuthData)
		fmt.Printf("%q %v\n", user, err)
	}
	// Output:
	// "alice" <nil>
	// "" 5042 USERAUTH_VERIFICATION_FAILED: user authentication data signature wrong
}
