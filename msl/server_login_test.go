package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// asked counts the passwords that a server looks at.
func (r *recorded) asked() *int {
	n := 0
	r.server.Users = []msl.UserScheme{&userauth.EmailPassword{Verify: func(ctx context.Context, email string, password []byte) (string, error) {
		n++
		return verifyPassword(ctx, email, password)
	}}}
	return &n
}

var (
	rightPassword = passwordOf("user1@foo.com", "user1pwd")
	wrongPassword = passwordOf("user1@foo.com", "guess")
)

// TestNoPasswordOracle asks with a right and a wrong password, and for an answer that
// can be given without looking at them.
func TestNoPasswordOracle(t *testing.T) {
	skipWithRace(t)
	exchanges := map[string]object{
		"no exchange":          {},
		"unknown exchange":     requests(keyRequest("X", object{})),
		"another exchange":     requests(keyRequest("JWE_LADDER", object{})),
		"useless key request":  requests(keyRequest("SYMMETRIC_WRAPPED", object{"keyid": "X"})),
		"good key request":     requests(pskRequest),
		"an unknown handshake": with(requests(keyRequest("X", object{})), object{"handshake": true}),
	}
	revoked := revoke("client1", msl.ErrMasterTokenIdentityRevoked)
	accepted := func(r *recorded) {
		if err := r.state.AcceptID(context.Background(), "client1", 7, 5); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(*recorded)
		who     object
		members object
		want    []msl.Code
	}{
		{"revoked holder", revoked, byToken(nil), nil, []msl.Code{msl.ErrMasterTokenIdentityRevoked}},
		{"revoked and expired", revoked, byToken(expired), nil, []msl.Code{msl.ErrMasterTokenIdentityRevoked}},
		{"revoked and not in the directory", revoked, byPSK("client1"), nil, []msl.Code{msl.ErrMasterTokenIdentityRevoked}},
		{"revoked in the directory", func(r *recorded) { r.directory["client1"].Revoked = true }, byPSK("client1"), nil, []msl.Code{msl.ErrEntityRevoked}},
		{"refused token", func(r *recorded) {
			r.server.CountSince = func(context.Context, string) (time.Time, error) { return time.Now().Add(time.Hour), nil }
		}, byToken(nil), nil, []msl.Code{msl.ErrMasterTokenIdentityRevoked}},
		{"token that nobody can judge now", func(r *recorded) {
			r.server.CountSince = func(context.Context, string) (time.Time, error) { return time.Time{}, errors.New("no answer") }
		}, byToken(nil), nil, []msl.Code{msl.ErrInternalException}},
		{"revoked user", revoke("user1@foo.com", msl.ErrUserIDTokenRevoked), byToken(nil), nil, []msl.Code{msl.ErrUserIDTokenRevoked}},
		{"revoked user of an entity", revoke("user1@foo.com", msl.ErrUserIDTokenRevoked), byPSK("client1"), nil, []msl.Code{msl.ErrUserIDTokenRevoked}},
		{"expired", nil, byToken(expired), object{"renewable": false}, []msl.Code{msl.ErrMessageExpiredNotRenewable}},
		{"expired and superseded", renewTwice, byToken(expired), renewable, []msl.Code{msl.ErrMasterTokenSequenceNumberOutOfSync, msl.ErrMessageExpiredNoKeyRequestData}},
		{"replayed", accepted, byToken(nil), object{"nonreplayableid": 5}, []msl.Code{msl.ErrMessageReplayed}},
		{"far ahead", nil, byToken(nil), object{"nonreplayableid": 1 << 40}, []msl.Code{msl.ErrMessageReplayedUnrecoverable}},
		{"without a token", nil, byPSK("client1"), object{"nonreplayableid": 5}, []msl.Code{msl.ErrIncompleteNonReplayableMessage}},
	} {
		for exchange, members := range exchanges {
			var first msl.Code
			for i, user := range []object{rightPassword, wrongPassword} {
				if members["handshake"] == true && c.members["renewable"] == false {
					continue // is refused for that
				}
				r := newRecorded(t)
				asked := r.asked()
				if c.prepare != nil {
					c.prepare(r)
				}
				keys := pskClient1
				if c.who["mastertoken"] != nil {
					keys = sessionRaw
				}
				message := keys.message(c.who, one(members, user, c.members), hello)
				got := msl.Code(r.refusal(t, r.serve(message)).InternalCode - 100000)
				if *asked > 0 || i > 0 && got != first || !slices.Contains(c.want, got) {
					t.Errorf("%s, %s, password %d: %v, want %v; %d passwords were looked at", c.name, exchange, i, got, c.want, *asked)
				}
				first = got
			}
		}
	}
}

// TestUnanswerableAfterUser keeps the protocol's order where that reveals nothing.
func TestUnanswerableAfterUser(t *testing.T) {
	unknown := requests(keyRequest("X", object{}))
	for _, c := range []struct {
		user object
		want msl.Code
	}{{nil, msl.ErrUnidentifiedKeyXScheme}, {rightPassword, msl.ErrUnidentifiedKeyXScheme}, {wrongPassword, msl.ErrEmailPasswordIncorrect}} {
		newRecorded(t).mustRefuse(t, fromPSK(unknown, c.user), c.want, 1)
		newRecorded(t).mustRefuse(t, fromToken(unknown, c.user), c.want, 1)
	}
	r := newRecorded(t)
	r.state.revoked["client1"] = msl.ErrMasterTokenIdentityRevoked
	r.mustRefuse(t, fromToken(unknown), msl.ErrUnidentifiedKeyXScheme, 1)
}

// TestPeerAnswerIsJudgedBeforeItsUser sends passwords in answers that answer nothing.
func TestPeerAnswerIsJudgedBeforeItsUser(t *testing.T) {
	for _, c := range []struct {
		recipient string
		want      msl.Code
	}{{"", msl.ErrUnexpectedResponseMessageID}, {"client1", msl.ErrUnexpectedResponseMessageID}} {
		for _, user := range []object{rightPassword, wrongPassword} {
			r := newRecorded(t)
			asked := r.asked()
			ours, theirs := net.Pipe()
			defer ours.Close()
			defer theirs.Close()
			go io.Copy(io.Discard, theirs)
			go theirs.Write(pskClient1.message(byPSK("client1"), one(user), hello))
			conn := msl.NewConn(ours, r.server, &msl.Client{Local: &entityauth.NoneEntity{Identity: "server1"}, Time: r.clock})
			_, err := conn.Request(context.Background(), &msl.Request{Recipient: c.recipient, Body: msl.BytesBody([]byte("hello"))})
			if !errors.Is(err, c.want) || *asked > 0 {
				t.Errorf("%v, want %v; %d passwords were looked at", err, c.want, *asked)
			}
		}
	}
}

// TestGuessesAreThrottled guesses the password of a user that is there, and of one
// that is not.
func TestGuessesAreThrottled(t *testing.T) {
	for _, email := range []string{"user1@foo.com", "nobody@foo.com"} {
		r := newRecorded(t)
		asked := r.asked()
		scheme := r.server.Users[0].(*userauth.EmailPassword)
		scheme.Find = func(_ context.Context, email string) (string, error) {
			if email == "nobody@foo.com" {
				return "", nil
			}
			return email, nil
		}
		guess := func(keys rawKeys, secret string, want msl.Code) {
			t.Helper()
			r.mustRefuse(t, keys.message(byPSK(keys.id), one(passwordOf(email, secret)), hello), want, 1)
		}
		for range 10 {
			guess(pskClient1, "guess", msl.ErrEmailPasswordIncorrect)
		}
		for _, secret := range []string{"guess", "user1pwd"} {
			guess(pskClient1, secret, msl.ErrInternalException)
			guess(pskClient2, secret, msl.ErrInternalException)
		}
		if *asked != 10 {
			t.Errorf("%s: %d passwords were looked at", email, *asked)
		}
		r.setClock(r.clock().Add(time.Second))
		guess(pskClient2, "guess", msl.ErrEmailPasswordIncorrect)
		guess(pskClient2, "guess", msl.ErrInternalException)
	}
}

// TestFamiliarDeviceIsNotLockedOut lets others guess the password of a user who has
// logged in from a device before.
func TestFamiliarDeviceIsNotLockedOut(t *testing.T) {
	r := newRecorded(t)
	login := func(keys rawKeys) (served bool) {
		t.Helper()
		e := r.serve(keys.message(byPSK(keys.id), one(rightPassword), hello))
		return e.served == nil && e.called
	}
	if !login(pskClient1) {
		t.Fatal("refused")
	}
	for range 20 {
		r.serve(pskClient2.message(byPSK("client2"), one(wrongPassword), hello))
	}
	if login(pskClient2) || !login(pskClient1) {
		t.Error("the one who guesses gets in, or the user at his own device does not")
	}
}

// A pin is a user scheme of an application's own that can be guessed.
type pin struct{ asked int }

func (*pin) Scheme() string     { return "PIN" }
func (*pin) Check([]byte) error { return nil }
func (p *pin) Authenticate(context.Context, string, []byte) (string, error) {
	p.asked++
	return "", msl.ErrUserAuthVerificationFailed
}
func (*pin) Claimed(context.Context, []byte) (string, bool, error) { return "ann", true, nil }

// TestOwnSchemeIsThrottled bounds the guesses of whatever can be guessed.
func TestOwnSchemeIsThrottled(t *testing.T) {
	r := newRecorded(t)
	scheme := &pin{}
	r.server.Users = append(r.server.Users, scheme)
	for i := range 20 {
		want := msl.ErrUserAuthVerificationFailed
		if i >= 10 {
			want = msl.ErrInternalException
		}
		r.mustRefuse(t, fromPSK(object{"userauthdata": object{"scheme": "PIN", "authdata": object{}}}), want, 1)
	}
	if scheme.asked != 10 {
		t.Errorf("%d were judged", scheme.asked)
	}
}

// TestFloodOfGuesses has one device send wrong passwords of all kinds of users while
// another one logs in.
func TestFloodOfGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const check = 100 * time.Millisecond
		r := newRecorded(t)
		scheme := r.server.Users[0].(*userauth.EmailPassword)
		scheme.Verify = func(ctx context.Context, email string, password []byte) (string, error) {
			time.Sleep(check)
			return verifyPassword(ctx, email, password)
		}
		r.server.Limits.ErrorsPerSecond, r.server.Limits.ErrorsPerSource = 1, 1
		var all sync.WaitGroup
		for i := range 1500 {
			message := fromPSK(passwordOf(fmt.Sprint("user", i), "guess"))
			all.Go(func() { _ = r.server.Serve(context.Background(), "", bytes.NewReader(message), io.Discard, nil) })
		}
		synctest.Wait()
		began := time.Now()
		if e := r.serve(pskClient2.message(byPSK("client2"), one(rightPassword), hello)); e.served != nil || !e.called {
			t.Errorf("%+v", e)
		}
		if waited := time.Since(began); waited > 3*check {
			t.Errorf("the other device waits for %v", waited)
		}
		all.Wait()
	})
}
