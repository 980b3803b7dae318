package msl_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A fixedConn reads what a peer sent, and keeps what it would get.
type fixedConn struct {
	io.Reader
	bytes.Buffer // written
}

func (c *fixedConn) Read(p []byte) (int, error) { return c.Reader.Read(p) }

// peerTo is this side of a connection on which a peer has sent all that. The first message of
// this side has the id 1.
func (r *recorded) peerTo(t *testing.T, sent []byte) (*msl.Conn, *fixedConn) {
	client := &msl.Client{Local: localSchemes(t)["PSK"], KeyExchanges: []msl.Offerer{clientKeys(t)["SYMMETRIC_WRAPPED"]}, Time: r.clock,
		Rand: io.MultiReader(bytes.NewReader(binary.BigEndian.AppendUint64(nil, 1)), rand.Reader)}
	t.Cleanup(func() { client.Close() })
	c := &fixedConn{Reader: bytes.NewReader(sent)}
	return msl.NewConn(c, r.server, client), c
}

// TestPeerTokenChecks shows tokens of this side that are wrong in one way, or in two: the
// check that comes first in the protocol decides. Nobody but their issuer can verify them.
func TestPeerTokenChecks(t *testing.T) {
	master := func(changes object) object { return object{"peermastertoken": masterToken(changes)} }
	user := func(changes object) object { return object{"peeruseridtoken": userToken(changes)} }
	services := func(list ...any) object { return object{"peerservicetokens": list} }
	empty := object{"tokendata": "", "signature": ""}
	const accepted = msl.Code(-1)
	for _, c := range []struct {
		name    string
		members []object
		want    msl.Code
	}{
		{"all", []object{master(nil), user(nil), services(serviceToken(object{"mtserialnumber": 7, "uitserialnumber": 8}))}, accepted},
		{"of another issuer", []object{{"peermastertoken": serviceKeys.token(masterMembers, "sessiondata", sessionData), "peeruseridtoken": serviceKeys.token(userMembers, "userdata", userData)}}, accepted},
		{"expired", []object{master(expired)}, accepted},
		{"master token a string", []object{{"peermastertoken": "x"}}, msl.ErrMSLParseError},
		{"empty master token", []object{{"peermastertoken": empty}}, msl.ErrMasterTokenTokenDataMissing},
		{"master token of garbage", []object{{"peermastertoken": issuerKeys.signed("tokendata", []byte("x"))}}, msl.ErrMasterTokenTokenDataParseError},
		{"master token expires early", []object{master(object{"expiration": 1, "sequencenumber": -1})}, msl.ErrMasterTokenExpiresBeforeRenewal},
		{"sequence number", []object{master(object{"sequencenumber": tooBig, "serialnumber": -1})}, msl.ErrMasterTokenSequenceNumberOutOfRange},
		{"serial number", []object{master(object{"serialnumber": tooBig})}, msl.ErrMasterTokenSerialNumberOutOfRange},
		{"user ID token a number", []object{master(nil), {"peeruseridtoken": 1}}, msl.ErrMSLParseError},
		{"empty user ID token", []object{master(nil), {"peeruseridtoken": empty}}, msl.ErrUserIDTokenTokenDataMissing},
		{"user ID token without a master token", []object{user(nil)}, msl.ErrUserIDTokenMasterTokenMismatch},
		{"user ID token of the sender's master token", []object{master(object{"serialnumber": 9}), user(nil)}, msl.ErrUserIDTokenMasterTokenMismatch},
		{"service tokens an object", []object{{"peerservicetokens": object{}}}, msl.ErrMSLParseError},
		{"service token a string", []object{services("x")}, msl.ErrMSLParseError},
		{"empty service token", []object{services(empty)}, msl.ErrServiceTokenTokenDataMissing},
		{"service token without a master token", []object{services(serviceToken(object{"mtserialnumber": 7}))}, msl.ErrServiceTokenMasterTokenMismatch},
		{"service token of another user", []object{master(nil), user(nil), services(serviceToken(object{"mtserialnumber": 7, "uitserialnumber": 9}))}, msl.ErrServiceTokenUserIDTokenMismatch},
		{"service token of the sender's user", []object{{"useridtoken": userToken(nil)}, services(serviceToken(object{"uitserialnumber": 8}))}, msl.ErrServiceTokenUserIDTokenMismatch},
		{"unknown compression, of another user", []object{services(serviceToken(object{"compressionalgo": "X", "uitserialnumber": 9}))}, msl.ErrUnidentifiedCompression},
		{"master token and user ID token", []object{{"peermastertoken": empty, "peeruseridtoken": empty}}, msl.ErrMasterTokenTokenDataMissing},
		{"user ID token and service token", []object{{"peeruseridtoken": empty}, services(empty)}, msl.ErrUserIDTokenTokenDataMissing},
		{"capabilities and master token", []object{{"capabilities": 1, "peermastertoken": empty}}, msl.ErrMSLParseError},
		{"key requests and master token", []object{requests(keyRequest("X", object{})), {"peermastertoken": empty}}, msl.ErrUnidentifiedKeyXScheme},
		{"one of two key requests, and master token", []object{requests(keyRequest("X", object{}), pskRequest), {"peermastertoken": empty}}, msl.ErrMasterTokenTokenDataMissing},
		{"key requests of a wrong user, and master token", []object{requests(keyRequest("X", object{})), passwordOf("user1@foo.com", "x"), {"peermastertoken": empty}}, msl.ErrEmailPasswordIncorrect},
		{"master token and handshake", []object{{"peermastertoken": empty, "handshake": true}}, msl.ErrMasterTokenTokenDataMissing},
		{"master token and replayed id", []object{{"peermastertoken": empty, "nonreplayableid": 1 << 20}}, msl.ErrMasterTokenTokenDataMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, called := newRecorded(t), false
			conn, wire := r.peerTo(t, fromToken(c.members...))
			err := conn.Serve(t.Context(), func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				w.Encrypted, w.Authenticated, called = false, false, true
				return nil
			})
			if c.want == accepted {
				if err != nil || !called {
					t.Errorf("called %v, %v", called, err)
				}
				return
			}
			got := r.refusal(t, exchanged{served: err, wire: wire.Bytes()})
			if called || got.InternalCode != c.want.Internal() || *got.MessageID != 2 {
				t.Errorf("called %v, %+v, want %v", called, got, c.want)
			}
		})
	}
}

// TestPeerServiceTokensKept has senders give this side service tokens, delete them, and fill the
// room for them: one that proves nothing cannot.
func TestPeerServiceTokensKept(t *testing.T) {
	many := make([]any, 64)
	for i := range many {
		many[i] = serviceToken(object{"name": fmt.Sprint(i), "servicedata": []byte("x")})
	}
	for name, c := range map[string]struct {
		list       []any
		held, kept int // after a message of a stranger, and of a sender with a session
	}{
		"new":      {[]any{serviceToken(object{"name": "new", "servicedata": []byte("x")})}, 1, 2},
		"deletion": {[]any{serviceToken(nil)}, 1, 0},
		"many":     {many[:63], 1, 64},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorded(t)
			members := object{"peerservicetokens": c.list}
			stranger := rawKeys{}.message(byScheme("NONE", object{"identity": "client3"}), one(members), hello)
			first := fromToken(object{"peerservicetokens": []any{serviceToken(object{"servicedata": []byte("kept")})}})
			conn, _ := r.peerTo(t, nil)
			client := conn.Client
			for i, message := range [][]byte{first, stranger, fromToken(members)} {
				conn := msl.NewConn(&fixedConn{Reader: bytes.NewReader(message)}, r.server, client)
				err := conn.Serve(t.Context(), func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
					w.Encrypted, w.Authenticated = false, false
					return nil
				})
				want := []int{1, c.held, c.kept}[i]
				if held := client.Held().ServiceTokens; err != nil || len(held) != want {
					t.Errorf("message %d: %d tokens are held, %v", i, len(held), err)
				}
			}
		})
	}
}

// answers are answers to the message with the id 1 that are wrong in two ways, and the code
// of the check that comes first in the protocol, in both kinds of networks.
var answers = []struct {
	name    string
	members object
	want    msl.Code
}{
	{"keys that nobody asked for, bad handshake", object{"handshake": true, "keyresponsedata": object{
		"mastertoken": masterToken(nil), "scheme": "SYMMETRIC_WRAPPED", "keydata": sessionResponse}}, msl.ErrKeyXResponseRequestMismatch},
	{"bad handshake, id without a master token", object{"handshake": true, "nonreplayableid": 1}, msl.ErrHandshakeDataMissing},
	{"id without a master token, answer to another message", object{"nonreplayableid": 1, "messageid": 3}, msl.ErrIncompleteNonReplayableMessage},
	{"answer to another message, from another sender", object{"messageid": 3}, msl.ErrUnexpectedResponseMessageID},
	{"the message itself, from another sender", object{"messageid": 1}, msl.ErrUnexpectedResponseMessageID},
	{"from another sender", nil, msl.ErrMessageSenderMismatch},
}

// TestAnswerChecks has a client of a server, and one of two peers, get those answers.
func TestAnswerChecks(t *testing.T) {
	req := &msl.Request{Recipient: "somebody else", Body: msl.BytesBody([]byte("x"))}
	for _, c := range answers {
		header := one(object{"messageid": 2}, c.members)
		client, _ := unprovenServer(t)
		server := byScheme("NONE", object{"identity": "server"})
		if _, err := client.Answer(t.Context(), req, 1, io.NopCloser(bytes.NewReader(rawKeys{}.message(server, header, hello)))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		conn, _ := newRecorded(t).peerTo(t, pskClient1.message(byPSK("client1"), header, hello))
		if _, err := conn.Request(t.Context(), req); !errors.Is(err, c.want) {
			t.Errorf("%s, of a peer: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestPeerAnswerChecks has a peer answer another message than the one that it got, and be
// wrong in another way before that: a peer judges the tokens of answers, too.
func TestPeerAnswerChecks(t *testing.T) {
	revoked := func(r *recorded) { r.state.revoked["client1"] = msl.ErrMasterTokenIdentityRevoked }
	for _, c := range []struct {
		name    string
		prepare func(*recorded)
		token   object
		members object
		want    msl.Code
	}{
		{"revoked", revoked, nil, nil, msl.ErrMasterTokenIdentityRevoked},
		{"expired", nil, expired, nil, msl.ErrMessageExpiredNotRenewable},
		{"expired, and asks for nothing", nil, expired, renewable, msl.ErrMessageExpiredNoKeyRequestData},
		{"replayed", nil, nil, object{"nonreplayableid": 0}, msl.ErrMessageReplayed},
		{"far ahead", nil, nil, object{"nonreplayableid": 1 << 20}, msl.ErrMessageReplayedUnrecoverable},
		{"unknown key request", nil, nil, requests(keyRequest("X", object{})), msl.ErrUnidentifiedKeyXScheme},
		{"wrong password", nil, nil, passwordOf("user1@foo.com", "x"), msl.ErrUnexpectedResponseMessageID}, // the user comes last
	} {
		r := newRecorded(t)
		if c.prepare != nil {
			c.prepare(r)
		}
		conn, _ := r.peerTo(t, sessionRaw.message(byToken(c.token), one(object{"messageid": 3}, c.members), hello))
		if _, err := conn.Request(t.Context(), &msl.Request{Body: msl.BytesBody([]byte("x"))}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestErrorAnswerID has an error answer another message. With some response codes, the sender
// may not have been able to read the id of the message that it answers.
func TestErrorAnswerID(t *testing.T) {
	unread := []int{-1, 0, 1, 2, 3, 6, 11}
	for code := -1; code <= 11; code++ {
		for id, matches := range map[int]bool{0: false, 1: false, 2: true, 3: false} {
			want := matches
			for _, c := range unread {
				want = want || c == code
			}
			header := encode(object{"messageid": id, "errorcode": code})
			client, answer := unprovenServer(t)
			err := answer(encode(with(rawKeys{}.signed("errordata", header), byScheme("NONE", object{"identity": "server"}))))
			var refused *msl.PeerError
			if errors.As(err, &refused) != want || errors.Is(err, msl.ErrUnexpectedResponseMessageID) == want {
				t.Errorf("response code %d, id %d: %v", code, id, err)
			}
			client.Close()
			conn, _ := newRecorded(t).peerTo(t, encode(with(pskClient1.signed("errordata", pskClient1.encrypt(header)), byPSK("client1"))))
			if _, err := conn.Request(t.Context(), &msl.Request{Body: msl.BytesBody([]byte("x"))}); errors.Is(err, msl.ErrUnexpectedResponseMessageID) == want {
				t.Errorf("response code %d, id %d, of a peer: %v", code, id, err)
			}
		}
	}
}
