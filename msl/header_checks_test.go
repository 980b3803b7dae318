package msl_test

import (
	"context"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// TestHeaderChecks refuses messages with the code of the check that comes first.
func TestHeaderChecks(t *testing.T) {
	unknown, unconfigured := keyRequest("X", object{}), keyRequest("JWE_LADDER", object{})
	response := object{"keyresponsedata": object{"mastertoken": masterToken(object{"serialnumber": 9}), "scheme": "SYMMETRIC_WRAPPED", "keydata": object{}}}
	ofDelivered := userToken(object{"mtserialnumber": 9})
	for _, c := range []struct {
		name    string
		message []byte
		want    msl.Code
	}{
		{"unknown, then unconfigured key exchange", fromPSK(requests(unknown, unconfigured)), msl.ErrUnidentifiedKeyXScheme},
		{"unconfigured, then unknown key exchange", fromPSK(requests(unconfigured, unknown)), msl.ErrKeyXFactoryNotFound},
		{"delivered master token, user of the sender's", fromToken(response, object{"useridtoken": userToken(nil)}), msl.ErrUserIDTokenMasterTokenMismatch},
		{"delivered master token and its user", fromToken(response, object{"useridtoken": ofDelivered}), msl.ErrKeyXResponseRequestMismatch},
	} {
		t.Run(c.name, func(t *testing.T) { newRecorded(t).mustRefuse(t, c.message, c.want, 1) })
	}
}

// TestPeerDeliversToken has a peer deliver a master token, which is one of this side: the
// peer's own user belongs to the peer's own master token.
func TestPeerDeliversToken(t *testing.T) {
	response := object{"keyresponsedata": object{"mastertoken": masterToken(object{"serialnumber": 9}), "scheme": "SYMMETRIC_WRAPPED", "keydata": sessionResponse}}
	ofDelivered := userToken(object{"mtserialnumber": 9})
	shown := object{"peermastertoken": masterToken(nil)}
	for _, c := range []struct {
		name    string
		members []object
		want    msl.Code
	}{
		{"user of the sender's", []object{{"useridtoken": userToken(nil)}}, msl.ErrKeyXResponseRequestMismatch},
		{"user of the delivered one", []object{{"useridtoken": ofDelivered}}, msl.ErrUserIDTokenMasterTokenMismatch},
		{"this side's user of the delivered one", []object{shown, {"peeruseridtoken": ofDelivered}}, msl.ErrKeyXResponseRequestMismatch},
		{"this side's user of the shown one", []object{shown, {"peeruseridtoken": userToken(nil)}}, msl.ErrUserIDTokenMasterTokenMismatch},
		{"service token of the shown one", []object{shown, {"peerservicetokens": []any{serviceToken(object{"mtserialnumber": 7})}}}, msl.ErrServiceTokenMasterTokenMismatch},
	} {
		r := newRecorded(t)
		conn, wire := r.peerTo(t, fromToken(append(c.members, response)...))
		got := r.refusal(t, exchanged{served: conn.Serve(t.Context(), echo), wire: wire.Bytes()})
		if got.InternalCode != c.want.Internal() || *got.MessageID != 2 {
			t.Errorf("%s: %+v, want %v", c.name, got, c.want)
		}
	}
}

// TestHeaderWithoutID has a header tell no id, or none that is one: the refusal does not
// pretend to answer the message with the id 0.
func TestHeaderWithoutID(t *testing.T) {
	for name, id := range map[string]any{"none": nil, "a string": "0", "a fraction": 0.5, "negative": -1, "too large": tooBig} {
		want := msl.ErrMSLParseError
		if _, number := id.(int); number || id == any(tooBig) {
			want = msl.ErrMessageIDOutOfRange
		}
		r := newRecorded(t)
		got := r.mustRefuse(t, pskClient1.message(byPSK("client1"), with(one(), object{"messageid": id}), hello), want, -1)
		if refusal := r.refusal(t, got); *refusal.MessageID < 2 {
			t.Errorf("%s: the answer has the id %d", name, *refusal.MessageID)
		}
	}
}

// TestErrorUnderMasterToken refuses an error that is protected by session keys: only entity
// authentication data may name the sender of an error.
func TestErrorUnderMasterToken(t *testing.T) {
	refusal := sessionRaw.signed("errordata", sessionRaw.encrypt(encode(object{"messageid": 1, "errorcode": 1})))
	newRecorded(t).mustRefuse(t, encode(with(refusal, byToken(nil))), msl.ErrMessageEntityNotFound, -1)
}

// TestUserProvenTwice has a message carry a user's token and password: both have to name the
// same user, whose name may be spelled in two ways.
func TestUserProvenTwice(t *testing.T) {
	composed, decomposed := "\u00e9@foo.com", "e\u0301@foo.com"
	token := func(name string) object {
		return object{"useridtoken": issuerKeys.token(userMembers, "userdata", object{"identity": name})}
	}
	for _, c := range []struct {
		token, password string
		same            bool
	}{{"user1@foo.com", "user1@foo.com", true}, {"user2@foo.com", "user1@foo.com", false}, {"User1@foo.com", "user1@foo.com", false},
		{composed, decomposed, true}, {decomposed, composed, true}} {
		r := newRecorded(t)
		r.server.Users = []msl.UserScheme{&userauth.EmailPassword{Verify: func(_ context.Context, email string, _ []byte) (string, error) { return email, nil }}}
		message := fromToken(token(c.token), passwordOf(c.password, "x"))
		if !c.same {
			r.mustRefuse(t, message, msl.ErrUserIDTokenUserAuthDataMismatch, 1)
		} else if e := r.serve(message); e.served != nil || !e.called || e.message.User != msl.CanonicalName(c.password) {
			t.Errorf("%+v: %v, %+v", c, e.served, e.message)
		}
	}
}
