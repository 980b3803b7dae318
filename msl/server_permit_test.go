package msl_test

import (
	"context"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// TestPermitUser asks the policy of a server for every user scheme, in the order of the
// protocol: for the entity before a proof is looked at, for the user after it is proven,
// and before it is compared with the user ID token of the message.
func TestPermitUser(t *testing.T) {
	proven := object{"userauthdata": object{"scheme": "USER_ID_TOKEN", "authdata": object{"mastertoken": masterToken(nil), "useridtoken": userToken(nil)}}}
	other := issuerKeys.token(userMembers, "userdata", object{"identity": "somebody"})
	type policy struct{ entity, user, sick bool }
	for name, c := range map[string]struct {
		policy
		members []object
		want    msl.Code // 0 accepts
	}{
		"permitted":                  {policy{entity: true, user: true}, []object{rightPassword}, 0},
		"user":                       {policy{entity: true}, []object{rightPassword}, msl.ErrUserAuthEntityUserIncorrectData},
		"wrong password first":       {policy{entity: true}, []object{wrongPassword}, msl.ErrEmailPasswordIncorrect},
		"blank first":                {policy{entity: true}, []object{passwordOf(" ", "x")}, msl.ErrEmailPasswordBlank},
		"entity before the password": {policy{user: true}, []object{wrongPassword}, msl.ErrUserAuthEntityIncorrectData},
		"entity before blanks":       {policy{user: true}, []object{passwordOf(" ", "x")}, msl.ErrUserAuthEntityIncorrectData},
		"before another user":        {policy{entity: true}, []object{rightPassword, {"useridtoken": other}}, msl.ErrUserAuthEntityUserIncorrectData},
		"another user":               {policy{entity: true, user: true}, []object{rightPassword, {"useridtoken": other}}, msl.ErrUserIDTokenUserAuthDataMismatch},
		"tokens":                     {policy{entity: true, user: true}, []object{proven}, 0},
		"tokens of a user":           {policy{entity: true}, []object{proven}, msl.ErrUserAuthEntityUserIncorrectData},
		"tokens of an entity":        {policy{user: true}, []object{proven}, msl.ErrUserAuthEntityIncorrectData},
		"no answer":                  {policy{sick: true}, []object{rightPassword}, msl.ErrInternalException},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorded(t)
			r.server.Users = append(r.server.Users, &userauth.UserIDToken{Issuer: r.server.Issuer})
			r.server.PermitUser = func(_ context.Context, identity, user, scheme string) (bool, error) {
				if identity != "client1" || scheme == "" {
					t.Errorf("asked about %q, %q", identity, scheme)
				}
				switch {
				case c.sick:
					return true, errors.New("no answer")
				case user == "":
					return c.entity, nil
				}
				return c.user, nil
			}
			message := fromToken(c.members...)
			if c.want != 0 {
				r.mustRefuse(t, message, c.want, 1)
				return
			}
			if e := r.serve(message); e.served != nil || !e.called || e.message.User != "user1@foo.com" {
				t.Errorf("%+v", e)
			}
		})
	}
}

// A sickDirectory knows nothing at the moment.
type sickDirectory struct{}

func (sickDirectory) Entity(context.Context, string) (*msl.Entity, error) {
	return nil, errors.New("no answer")
}

// TestSickDirectory has a directory fail that says which schemes an entity may use: nothing is
// permitted because of that.
func TestSickDirectory(t *testing.T) {
	for name, members := range map[string]object{"key exchange": requests(pskRequest), "user": rightPassword} {
		t.Run(name, func(t *testing.T) {
			r := newRecorded(t)
			r.server.Directory = sickDirectory{}
			if e := r.mustRefuse(t, fromPSK(members), msl.ErrInternalException, 1); e.called {
				t.Error("the application ran")
			}
		})
	}
}
