package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

func recordedUser(changes object) object {
	return issuerKeys.token(with(userMembers, changes), "userdata", userData)
}

func TestVectorsUserIDToken(t *testing.T) {
	var v struct {
		Cases []struct {
			Scheme   string
			Encoding encoding
		}
	}
	readVectors(t, "spec/userauthdata.json", &v)
	seen := 0
	for _, c := range v.Cases {
		if c.Scheme != "USER_ID_TOKEN" {
			continue
		}
		seen++
		var raw schemed
		if err := json.Unmarshal(c.Encoding.Bytes, &raw); err != nil {
			t.Fatal(err)
		}
		var tokens struct{ MasterToken, UserIDToken json.RawMessage }
		if err := json.Unmarshal(raw.AuthData, &tokens); err != nil {
			t.Fatal(err)
		}
		own := userauth.UserIDTokenData(tokens.MasterToken, tokens.UserIDToken)
		if own.Scheme != c.Scheme {
			t.Errorf("scheme %q", own.Scheme)
		}
		sameObject(t, own.AuthData, raw.AuthData)
		scheme := &userauth.UserIDToken{Issuer: newRecorded(t).server.Issuer}
		for _, authdata := range [][]byte{raw.AuthData, own.AuthData} {
			if err := scheme.Check(authdata); err != nil {
				t.Error(err)
			}
			if user, err := scheme.Authenticate(context.Background(), "client1", authdata); err != nil || user != "user1@foo.com" {
				t.Errorf("user %q, %v", user, err)
			}
		}
	}
	if seen != 1 {
		t.Errorf("%d cases", seen)
	}
}

func TestUserIDTokenCheck(t *testing.T) {
	good := object{"mastertoken": recordedToken(nil), "useridtoken": recordedUser(nil)}
	for _, c := range []schemeCase{
		{"whole", good, -1},
		{"no master token", object{"useridtoken": recordedUser(nil)}, msl.ErrMSLParseError},
		{"no user id token", object{"mastertoken": recordedToken(nil)}, msl.ErrMSLParseError},
		{"a string", with(good, object{"mastertoken": "x"}), msl.ErrMSLParseError},
		{"empty master token", with(good, object{"mastertoken": object{}, "useridtoken": object{}}), msl.ErrUserAuthMasterTokenInvalid},
		{"malformed master token", with(good, object{"mastertoken": recordedToken(object{"expiration": 1})}), msl.ErrUserAuthMasterTokenInvalid},
		{"empty user id token", with(good, object{"useridtoken": object{}}), msl.ErrUserAuthUserIDTokenInvalid},
		{"malformed user id token", with(good, object{"useridtoken": recordedUser(object{"serialnumber": -1})}), msl.ErrUserAuthUserIDTokenInvalid},
		{"user id token of another master token", with(good, object{"useridtoken": recordedUser(object{"mtserialnumber": 9})}), msl.ErrUserAuthUserIDTokenInvalid},
	} {
		err := (&userauth.UserIDToken{}).Check(encode(c.authdata))
		var e *msl.Error
		if c.want < 0 && err != nil || c.want >= 0 && (!errors.As(err, &e) || e.Code != c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// The first thing that is wrong decides.
func TestUserIDTokenAuthenticate(t *testing.T) {
	r := newRecorded(t)
	foreign := rawKeys{"x", issuerKeys.encryption, serviceKeys.mac}
	token, user := recordedToken(nil), recordedUser(nil)
	foreignToken, foreignUser := foreign.token(masterMembers, "sessiondata", sessionData), foreign.token(userMembers, "userdata", userData)
	say := func(err error) func(context.Context, string, string) error {
		return func(context.Context, string, string) error { return err }
	}
	permit := func(ok bool, err error) func(context.Context, string, string) (bool, error) {
		return func(context.Context, string, string) (bool, error) { return ok, err }
	}
	down := errors.New("database is down")
	for _, c := range []struct {
		name        string
		token, user object
		identity    string
		scheme      userauth.UserIDToken
		want        error
	}{
		{"accepted", token, user, "client1", userauth.UserIDToken{Permitted: permit(true, nil), Revoked: say(nil)}, nil},
		{"expired", recordedToken(object{"renewalwindow": 1, "expiration": 1}), recordedUser(object{"renewalwindow": 1, "expiration": 1}), "client1", userauth.UserIDToken{}, nil},
		{"another issuer's master token", foreignToken, foreignUser, "other", userauth.UserIDToken{}, msl.ErrUserAuthMasterTokenNotDecrypted},
		{"master token of another entity", token, foreignUser, "other", userauth.UserIDToken{}, msl.ErrUserAuthEntityMismatch},
		{"another issuer's user id token", token, foreignUser, "client1", userauth.UserIDToken{Permitted: permit(false, nil)}, msl.ErrUserAuthUserIDTokenNotDecrypted},
		{"not permitted", token, user, "client1", userauth.UserIDToken{Permitted: permit(false, nil), Revoked: say(down)}, msl.ErrUserAuthEntityUserIncorrectData},
		{"no answer for permission", token, user, "client1", userauth.UserIDToken{Permitted: permit(true, down)}, msl.ErrInternalException},
		{"no answer for revocation", token, user, "client1", userauth.UserIDToken{Revoked: say(down)}, msl.ErrUserAuthUserIDTokenRevokeCheckError},
		{"revoked", token, user, "client1", userauth.UserIDToken{Revoked: say(msl.ErrUserIDTokenRevoked)}, msl.ErrUserIDTokenRevoked},
		{"device that is down", token, user, "client1", userauth.UserIDToken{Tokens: func(*msl.MasterToken) (*msl.Session, error) {
			return nil, keystore.ErrUnavailable
		}}, msl.ErrInternalException},
	} {
		c.scheme.Issuer = r.server.Issuer
		authdata := encode(object{"mastertoken": c.token, "useridtoken": c.user})
		got, err := c.scheme.Authenticate(context.Background(), c.identity, authdata)
		if c.want == nil && (err != nil || got != "user1@foo.com") || c.want != nil && (!errors.Is(err, c.want) || got != "") {
			t.Errorf("%s: %q, %v, want %v", c.name, got, err, c.want)
		}
	}
}

// The server makes the checks that the scheme does not.
func TestUserIDTokenServerChecks(t *testing.T) {
	proof := userauth.UserIDTokenData(encode(recordedToken(nil)), encode(recordedUser(nil)))
	with2 := object{"userauthdata": object{"scheme": proof.Scheme, "authdata": json.RawMessage(proof.AuthData)}}
	who := object{"entityauthdata": object{"scheme": "PSK", "authdata": object{"identity": "client1"}}}
	session := object{"mastertoken": recordedToken(nil)}
	other := issuerKeys.token(userMembers, "userdata", object{"identity": "user2@foo.com"})
	for _, c := range []struct {
		name    string
		prepare func(*recorded)
		message []byte
		want    msl.Code
	}{
		{"permitted", func(*recorded) {}, pskClient1.message(who, one(with2), hello), -1},
		{"not permitted", func(r *recorded) { r.directory["client1"].UserSchemes = []string{"EMAIL_PASSWORD"} },
			pskClient1.message(who, one(with2), hello), msl.ErrUserAuthEntityIncorrectData},
		{"revoked", func(r *recorded) { r.state.revoked["user1@foo.com"] = msl.ErrUserIDTokenRevoked },
			pskClient1.message(who, one(with2), hello), msl.ErrUserIDTokenRevoked},
		{"same user in the message", func(*recorded) {},
			sessionRaw.message(session, one(with2, object{"useridtoken": recordedUser(nil)}), hello), -1},
		{"another user in the message", func(*recorded) {},
			sessionRaw.message(session, one(with2, object{"useridtoken": other}), hello), msl.ErrUserIDTokenUserAuthDataMismatch},
	} {
		r := newRecorded(t)
		r.server.Users = append(r.server.Users, &userauth.UserIDToken{Issuer: r.server.Issuer, Tokens: r.server.OpenMasterToken})
		c.prepare(r)
		if c.want >= 0 {
			r.mustRefuse(t, c.message, c.want, 1)
			continue
		}
		if got, err := r.server.Receive(context.Background(), bytes.NewReader(c.message)); err != nil || got.User != "user1@foo.com" {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

// The recorded request proves its user by the tokens of an earlier session that
// had expired. Its key exchange is stood in for.
func TestConversationUserIDToken(t *testing.T) {
	c := conversation{label: "user-USER_ID_TOKEN"}
	readVectors(t, "conversations/user-USER_ID_TOKEN.decoded.json", &c.exchanges)
	for i, e := range c.exchanges {
		r := newRecorded(t)
		r.server.KeyExchanges = append(r.server.KeyExchanges, stubExchange{scheme: "DIFFIE_HELLMAN", store: r.store})
		r.server.Users = append(r.server.Users, &userauth.UserIDToken{Issuer: r.server.Issuer, Tokens: r.server.OpenMasterToken, Revoked: r.state.Revoked})
		r.setClock(time.Unix(e.Req.HeaderData.Timestamp, 0))
		got, err := r.server.Receive(context.Background(), bytes.NewReader(c.request(t, i)))
		if err != nil || got.Identity != "client1" || got.User != "user1@foo.com" || string(got.Payload) != e.Req.payload() {
			t.Errorf("exchange %d: %+v, %v", i+1, got, err)
		}
	}
	if len(c.exchanges) != 2 || c.exchanges[0].Req.HeaderData.UserAuthData == nil {
		t.Errorf("%d exchanges", len(c.exchanges))
	}
}

// Code that opens a master token releases its keys, even if the data is refused
// afterwards; only the server keeps them, until it is closed.
func TestOpenedTokensAreReleased(t *testing.T) {
	r := newWide(t)
	before, _ := r.store.Live()
	user := encode(object{"mastertoken": recordedToken(nil), "useridtoken": recordedUser(nil)})
	inner := object{"scheme": "PSK", "authdata": object{"identity": "nobody"}}
	hidden := sessionRaw.hidden(recordedToken(nil), inner)
	forged := with(hidden, object{"signature": ""})
	for _, tokens := range []func(*msl.MasterToken) (*msl.Session, error){r.server.Issuer.Open, r.server.OpenMasterToken} {
		scheme := &userauth.UserIDToken{Issuer: r.server.Issuer, Tokens: tokens}
		for _, identity := range []string{"client1", "other"} {
			scheme.Authenticate(context.Background(), identity, user)
		}
		protected := &entityauth.MTProtected{Tokens: tokens, Inner: r.server.Peers}
		for _, data := range []object{hidden, forged} {
			if _, _, err := protected.Open(context.Background(), encode(data)); err == nil {
				t.Error("accepted")
			}
		}
	}
	r.server.Close()
	if after, _ := r.store.Live(); after != before {
		t.Errorf("%d keys open, %d before", after, before)
	}
}

// A token that a message has used is opened once, and one that was only shown is
// opened each time.
func TestOpenMasterToken(t *testing.T) {
	r := newRecorded(t)
	recorded := recordedToken(nil)
	open := func() *msl.Session {
		t.Helper()
		session, err := r.server.OpenMasterToken(must(msl.ParseMasterToken(encode(recorded))))
		if err != nil {
			t.Fatal(err)
		}
		session.Release()
		return session
	}
	if one, other := open(), open(); one == other || r.server.Remembered() != 0 {
		t.Error("a token that was only shown is remembered")
	}
	message := sessionRaw.message(object{"mastertoken": recorded}, one(), hello)
	if _, err := r.server.Receive(context.Background(), bytes.NewReader(message)); err != nil {
		t.Fatal(err)
	}
	if one, other := open(), open(); one != other {
		t.Error("a token that was used is opened again")
	}
}
