package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestUserTokenOfAnswer has users with a user ID token, or with a password. An answer brings the
// same token again, a new one if it is due, or none.
func TestUserTokenOfAnswer(t *testing.T) {
	window := object{"renewalwindow": 1699999999}
	for name, c := range map[string]struct {
		token   object // changes of a user ID token, or nil
		members object
		want    string
	}{
		"not due, renewable":      {object{}, renewable, "same"},
		"in its window":           {window, renewable, "new"},
		"from now on":             {object{"renewalwindow": 1700000000}, renewable, "new"},
		"a second early":          {object{"renewalwindow": 1700000001}, renewable, "same"},
		"due, not renewable":      {window, nil, "same"},
		"expired, not renewable":  {expired, nil, "new"},
		"user with a password":    {nil, with(renewable, rightPassword), "new"},
		"password, not renewable": {nil, rightPassword, ""},
		"nobody":                  {nil, renewable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			sent, members := object{}, []object{c.members}
			if c.token != nil {
				sent = userToken(c.token)
				members = append(members, object{"useridtoken": sent})
			}
			r := newRecorded(t)
			e := r.serve(fromToken(members...))
			a, err := readAnswer(e.wire, r.public(), &sessionRaw, func(answerHeader) (*rawKeys, error) { return &sessionRaw, nil })
			if err != nil || a.err != nil {
				t.Fatal(err, a.err)
			}
			got := ""
			var token struct{ TokenData []byte }
			if a.header.UserIDToken != nil {
				if got = "new"; json.Unmarshal(a.header.UserIDToken, &token) == nil && c.token != nil && bytes.Equal(token.TokenData, sent["tokendata"].([]byte)) {
					got = "same"
				}
			}
			if got != c.want {
				t.Errorf("got the token %q, want %q", got, c.want)
			}
		})
	}
}

// TestPeerWaitsForUserToken has a peer answer with a password of its user: it gets a user ID
// token, if it can use one, once the answer was read.
func TestPeerWaitsForUserToken(t *testing.T) {
	for name, c := range map[string]struct {
		who     object
		keys    rawKeys
		members object
		want    int // messages of this side
	}{
		"waits":           {byToken(nil), sessionRaw, with(renewable, rightPassword), 2},
		"not renewable":   {byToken(nil), sessionRaw, rightPassword, 1},
		"without a user":  {byToken(nil), sessionRaw, renewable, 1},
		"without a token": {byPSK("client1"), pskClient1, with(renewable, rightPassword), 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorded(t)
			conn, out := r.peerTo(t, c.keys.message(c.who, one(object{"messageid": 2}, c.members), with(hello, object{"messageid": 2})))
			answer, err := conn.Request(t.Context(), &msl.Request{Body: msl.BytesBody([]byte("x"))})
			if err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, answer.Body); got != "hello" {
				t.Errorf("read %q", got)
			}
			if err := answer.Body.Close(); err != nil {
				t.Fatal(err)
			}
			if got := bytes.Count(out.Bytes(), []byte(`"headerdata"`)); got != c.want {
				t.Errorf("%d messages, want %d", got, c.want)
			}
		})
	}
}

// A failingResponder counts the requests that it fails to answer.
type failingResponder struct{ tried *int }

func (failingResponder) Scheme() string        { return "DIFFIE_HELLMAN" }
func (failingResponder) Exposes() msl.Exposure { return msl.Exposure{} }
func (failingResponder) Check([]byte) error    { return nil }
func (f failingResponder) Respond(context.Context, msl.Requester, []byte) (*msl.SessionKeys, []byte, error) {
	*f.tried++
	return nil, nil, msl.ErrUnwrapError
}

// TestFailingKeyRequests sends many key requests that can only be tried: few of them are, and of
// equal ones only the first.
func TestFailingKeyRequests(t *testing.T) {
	for _, c := range []struct{ bad, kinds, tried int }{{1, 1, 1}, {7, 7, 7}, {8, 8, 8}, {63, 63, 8}, {63, 1, 1}, {63, 7, 7}} {
		tried, r := 0, newRecorded(t)
		r.server.KeyExchanges = append([]msl.Responder{failingResponder{&tried}}, r.server.KeyExchanges...)
		var list []any
		for n := range c.bad {
			list = append(list, keyRequest("DIFFIE_HELLMAN", object{"n": n % c.kinds}))
		}
		message := fromPSK(requests(append(list, pskRequest)...))
		if c.kinds >= 8 {
			r.mustRefuse(t, message, msl.ErrUnwrapError, 1)
		} else if e := r.serve(message); e.served != nil || !e.called {
			t.Errorf("%d requests: %v", c.bad, e.served)
		}
		if tried != c.tried {
			t.Errorf("%d of %d requests were tried", tried, c.bad)
		}
	}
}
