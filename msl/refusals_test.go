package msl_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// The senders of a message, by the credentials in its header.
func byPSK(identity string) object {
	return object{"entityauthdata": object{"scheme": "PSK", "authdata": object{"identity": identity}}}
}

func byScheme(scheme string, authdata object) object {
	return object{"entityauthdata": object{"scheme": scheme, "authdata": authdata}}
}

// masterToken is a token of the recorded issuer for client1, with changed
// members. Its session keys are sessionRaw.
func masterToken(changes object) object {
	return issuerKeys.token(with(masterMembers, changes), "sessiondata", sessionData)
}

func byToken(changes object) object { return object{"mastertoken": masterToken(changes)} }

func userToken(changes object) object {
	return issuerKeys.token(with(userMembers, changes), "userdata", userData)
}

func serviceToken(changes object) object {
	return serviceKeys.signed("tokendata", encode(with(object{"name": "st", "encrypted": false, "servicedata": ""}, changes)))
}

func keyRequest(scheme string, keydata object) object {
	return object{"scheme": scheme, "keydata": keydata}
}

var (
	pskRequest = keyRequest("SYMMETRIC_WRAPPED", object{"keyid": "PSK"})
	password   = object{"scheme": "EMAIL_PASSWORD", "authdata": object{"email": "user1@foo.com", "password": "user1pwd"}}
	expired    = object{"renewalwindow": 1699999998, "expiration": 1699999999}
	renewable  = object{"renewable": true}

	// sessionResponse answers a request that nobody makes.
	sessionResponse = object{"keyid": "SESSION", "encryptionkey": "", "hmackey": ""}
)

func passwordOf(email, secret string) object {
	return object{"userauthdata": object{"scheme": "EMAIL_PASSWORD", "authdata": object{"email": email, "password": secret}}}
}

func requests(list ...any) object { return object{"renewable": true, "keyrequestdata": list} }

// A refusalCase is a message that is wrong in one way.
type refusalCase struct {
	name    string
	code    msl.Code
	unread  bool // the server cannot know the message's id
	prepare func(*recorded)
	message []byte
}

func fromPSK(members ...object) []byte {
	return pskClient1.message(byPSK("client1"), one(members...), hello)
}
func fromToken(members ...object) []byte {
	return sessionRaw.message(byToken(nil), one(members...), hello)
}

func envelopeCases() []refusalCase {
	outer := func(changes object) []byte {
		head := with(pskClient1.signed("headerdata", pskClient1.encrypt(encode(one()))), byPSK("client1"))
		return encode(with(head, changes))
	}
	cases := []refusalCase{
		{name: "nothing", code: msl.ErrMSLParseError, message: nil},
		{name: "a blank first", code: msl.ErrMSLParseError, message: append([]byte(" "), fromPSK()...)},
		{name: "garbage", code: msl.ErrMSLParseError, message: []byte("GET / HTTP/1.1\r\n\r\n")},
		{name: "an array", code: msl.ErrMSLParseError, message: []byte(`[{}]`)},
		{name: "an empty object", code: msl.ErrMSLParseError, message: []byte(`{}`)},
		{name: "a duplicate", code: msl.ErrMSLParseError, message: append([]byte(`{"signature":"",`), outer(nil)[1:]...)},
		{name: "a null", code: msl.ErrMSLParseError, message: append([]byte(`{"x":null,`), outer(nil)[1:]...)},
		{name: "not UTF-8", code: msl.ErrMSLParseError, message: append([]byte("{\"x\":\"\xff\","), outer(nil)[1:]...)},
		{name: "deeply nested", code: msl.ErrMSLParseError, message: []byte(`{"x":` + strings.Repeat("[", 100000))},
		{name: "deeply nested and whole", code: msl.ErrMSLParseError, message: []byte(`{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}")},
		{name: "too many members", code: msl.ErrMSLParseError, message: []byte(`{"x":[` + strings.Repeat("1,", 100000) + "1]}")},
		{name: "oversized", code: msl.ErrMSLParseError, message: outer(object{"x": strings.Repeat("x", 1<<20)})},
		{name: "oversized without end", code: msl.ErrMSLParseError, message: []byte(`{"x":"` + strings.Repeat("x", 20<<20))},
		{name: "cut off", code: msl.ErrMSLParseError, message: outer(nil)[:100]},
		{name: "no headerdata", code: msl.ErrMSLParseError, message: outer(object{"headerdata": nil})},
		{name: "headerdata a number", code: msl.ErrMSLParseError, message: outer(object{"headerdata": 1})},
		{name: "empty headerdata", code: msl.ErrHeaderDataMissing, message: outer(object{"headerdata": ""})},
		{name: "nobody", code: msl.ErrMessageEntityNotFound, message: outer(object{"entityauthdata": nil})},
		{name: "entity a string", code: msl.ErrMSLParseError, message: outer(object{"entityauthdata": "x"})},
		{name: "no scheme", code: msl.ErrMSLParseError, message: outer(object{"entityauthdata": object{"authdata": object{}}})},
		{name: "no authdata", code: msl.ErrMSLParseError, message: outer(object{"entityauthdata": object{"scheme": "PSK"}})},
		{name: "unknown scheme", code: msl.ErrUnidentifiedEntityAuthScheme, message: outer(byScheme("psk", object{"identity": "client1"}))},
		{name: "unconfigured scheme", code: msl.ErrEntityAuthFactoryNotFound, message: outer(byScheme("ECC", object{"identity": "x", "pubkeyid": "y"}))},
		{name: "signature of other data", code: msl.ErrMessageEntityDataBasedVerificationFailed, message: outer(object{"signature": pskClient1.sign(nil)})},
		{name: "empty signature", code: msl.ErrMessageEntityDataBasedVerificationFailed, message: outer(object{"signature": ""})},
		{name: "keys of another entity", code: msl.ErrMessageEntityDataBasedVerificationFailed, message: pskClient2.message(byPSK("client1"), one(), hello)},
		{name: "envelope of another version", code: msl.ErrCiphertextEnvelopeParseError, message: encode(with(pskClient1.signed("headerdata", []byte(`{"version":2,"cipherspec":"AESWrap","ciphertext":"AA=="}`)), byPSK("client1")))},
		{name: "ciphertext of odd length", code: msl.ErrCiphertextIllegalBlockSize, message: encode(with(pskClient1.signed("headerdata", []byte(`{"keyid":"x","iv":"AAAAAAAAAAAAAAAAAAAAAA==","ciphertext":"AA==","sha256":"AA=="}`)), byPSK("client1")))},
		{name: "ciphertext without padding", code: msl.ErrCiphertextBadPadding, message: encode(with(pskClient1.signed("headerdata", []byte(`{"keyid":"x","iv":"AAAAAAAAAAAAAAAAAAAAAA==","ciphertext":"AAAAAAAAAAAAAAAAAAAAAA==","sha256":"AA=="}`)), byPSK("client1")))},
		{name: "mastertoken a string", code: msl.ErrMSLParseError, message: outer(object{"entityauthdata": nil, "mastertoken": "x"})},
		{name: "master token of garbage", code: msl.ErrMSLParseError, message: outer(object{"entityauthdata": nil, "mastertoken": object{}})},
		{name: "master token of another issuer", code: msl.ErrMasterTokenUntrusted, message: sessionRaw.message(object{"mastertoken": serviceKeys.token(masterMembers, "sessiondata", sessionData)}, one(), hello)},
		{name: "master token, other session keys", code: msl.ErrMessageMasterTokenBasedVerificationFailed, message: pskClient1.message(byToken(nil), one(), hello)},
	}
	for i := range cases {
		cases[i].unread = true
	}
	return cases
}

// longName is longer than the state of a server can keep.
var longName = strings.Repeat("x", 4097)

func revoke(identity string, err error) func(*recorded) {
	return func(r *recorded) { r.state.revoked[identity] = err }
}

func senderCases() []refusalCase {
	revoked := func(r *recorded) { r.directory["client1"].Revoked = true }
	return []refusalCase{
		{name: "revoked entity", code: msl.ErrEntityRevoked, unread: true, prepare: revoked, message: fromPSK()},
		{name: "revoked holder", code: msl.ErrMasterTokenIdentityRevoked, prepare: revoke("client1", msl.ErrMasterTokenIdentityRevoked), message: fromToken()},
		{name: "refused token of a revoked user", code: msl.ErrMasterTokenIdentityRevoked, prepare: func(r *recorded) {
			revoke("user1@foo.com", msl.ErrUserIDTokenRevoked)(r)
			r.server.CountSince = func(context.Context, string) (time.Time, error) { return time.Now().Add(time.Hour), nil }
		}, message: fromToken(object{"useridtoken": userToken(nil)})},
		{name: "revoked user", code: msl.ErrUserIDTokenRevoked, prepare: revoke("user1@foo.com", msl.ErrUserIDTokenRevoked), message: fromToken(object{"useridtoken": userToken(nil)})},
		{name: "revoked user with a password", code: msl.ErrUserIDTokenRevoked, prepare: revoke("user1@foo.com", msl.ErrUserIDTokenRevoked), message: fromPSK(object{"userauthdata": password})},
		{name: "name too long", code: msl.ErrIncorrectEntityAuthData, unread: true, prepare: func(r *recorded) {
			r.directory[longName] = &msl.Entity{Identity: longName, Scheme: "NONE"}
		}, message: rawKeys{}.message(byScheme("NONE", object{"identity": longName}), one(), hello)},
		{name: "scheme not permitted", code: msl.ErrIncorrectEntityAuthData, unread: true, message: rawKeys{}.message(byScheme("NONE", object{"identity": "client1"}), one(), hello)},
		{name: "unknown entity", code: msl.ErrEntityNotFound, unread: true, message: pskClient1.message(byPSK("nobody"), one(), hello)},
		{name: "unknown key", code: msl.ErrRSAPublicKeyNotFound, unread: true, message: rawKeys{}.message(byScheme("RSA", object{"identity": "client5", "pubkeyid": "x"}), one(), hello)},
		{name: "not signed by the entity", code: msl.ErrMessageEntityDataBasedVerificationFailed, unread: true, message: rawKeys{}.message(byScheme("RSA", object{"identity": "client5", "pubkeyid": "rsakeyclient5"}), one(), hello)},
		{name: "revoked before expired", code: msl.ErrMasterTokenIdentityRevoked, prepare: revoke("client1", msl.ErrMasterTokenIdentityRevoked), message: sessionRaw.message(byToken(expired), one(), hello)},
		{name: "expired", code: msl.ErrMessageExpiredNotRenewable, message: sessionRaw.message(byToken(expired), one(), hello)},
		{name: "expired on the second", code: msl.ErrMessageExpiredNotRenewable, message: sessionRaw.message(byToken(object{"renewalwindow": 1, "expiration": 1700000000}), one(), hello)},
		{name: "expired, no key request", code: msl.ErrMessageExpiredNoKeyRequestData, message: sessionRaw.message(byToken(expired), one(renewable), hello)},
		{name: "expired and superseded", code: msl.ErrMasterTokenSequenceNumberOutOfSync, prepare: renewTwice, message: sessionRaw.message(byToken(expired), one(requests(pskRequest)), hello)},
		{name: "renewal of a superseded token", code: msl.ErrMasterTokenSequenceNumberOutOfSync, prepare: renewTwice, message: sessionRaw.message(byToken(object{"renewalwindow": 1}), one(requests(pskRequest)), hello)},
	}
}

// renewTwice makes the token with sequence number 1 too old to be renewed.
func renewTwice(r *recorded) {
	for sequence := range int64(2) {
		if _, err := r.state.Renew(context.Background(), "client1", 7, sequence+1); err != nil {
			r.t.Fatal(err)
		}
	}
}

func headerCases() []refusalCase {
	return []refusalCase{
		{name: "no messageid", code: msl.ErrMSLParseError, unread: true, message: fromPSK(object{"messageid": "x"})},
		{name: "no renewable", code: msl.ErrMSLParseError, message: pskClient1.message(byPSK("client1"), object{"messageid": 1}, hello)},
		{name: "handshake a number", code: msl.ErrMSLParseError, message: fromPSK(object{"handshake": 1})},
		{name: "handshake not renewable", code: msl.ErrHandshakeDataMissing, message: fromPSK(object{"handshake": true, "keyrequestdata": []any{pskRequest}})},
		{name: "header with a duplicate", code: msl.ErrMSLParseError, unread: true, message: pskClient1.message(byPSK("client1"), []byte(`{"messageid":1,"messageid":1,"renewable":false}`), hello)},
		{name: "header with something after it", code: msl.ErrMSLParseError, unread: true, message: pskClient1.message(byPSK("client1"), []byte(`{"messageid":1,"renewable":false}x`), hello)},
		{name: "deeply nested header", code: msl.ErrMSLParseError, unread: true, message: pskClient1.message(byPSK("client1"), []byte(`{"messageid":1,"renewable":false,"x":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+"}"), hello)},
		{name: "non-replayable id without a master token", code: msl.ErrIncompleteNonReplayableMessage, message: fromPSK(object{"nonreplayableid": 1})},
		{name: "non-replayable id negative", code: msl.ErrNonReplayableIDOutOfRange, message: fromToken(object{"nonreplayableid": -1})},
		{name: "non-replayable id too big", code: msl.ErrNonReplayableIDOutOfRange, message: fromToken(object{"nonreplayableid": tooBig})},
		{name: "non-replayable id a string", code: msl.ErrMSLParseError, message: fromToken(object{"nonreplayableid": "1"})},
		{name: "non-replayable id far ahead", code: msl.ErrMessageReplayedUnrecoverable, message: fromToken(object{"nonreplayableid": 65537})},
		{name: "capabilities of numbers", code: msl.ErrMSLParseError, message: fromPSK(object{"capabilities": object{"languages": []int{1}}})},
		{name: "key response", code: msl.ErrKeyXResponseRequestMismatch, message: fromPSK(object{"keyresponsedata": object{"mastertoken": masterToken(nil), "scheme": "SYMMETRIC_WRAPPED", "keydata": object{}}})},
		{name: "key response of an unknown scheme", code: msl.ErrUnidentifiedKeyXScheme, message: fromPSK(object{"keyresponsedata": object{"mastertoken": masterToken(nil), "scheme": "X", "keydata": object{}}})},
		{name: "key response of an unconfigured scheme", code: msl.ErrKeyXFactoryNotFound, message: fromPSK(object{"keyresponsedata": object{"mastertoken": masterToken(nil), "scheme": "JWE_LADDER", "keydata": object{}}})},
		{name: "key response with a bad token", code: msl.ErrMasterTokenTokenDataMissing, message: fromPSK(object{"keyresponsedata": object{"mastertoken": object{"tokendata": ""}, "scheme": "X", "keydata": object{}}})},
		{name: "user id token without master token", code: msl.ErrUserIDTokenMasterTokenMismatch, message: fromPSK(object{"useridtoken": userToken(nil)})},
		{name: "user id token of another master token", code: msl.ErrUserIDTokenMasterTokenMismatch, message: fromToken(object{"useridtoken": userToken(object{"mtserialnumber": 6})})},
		{name: "user id token of another issuer", code: msl.ErrUserIDTokenNotDecrypted, message: fromToken(object{"useridtoken": serviceKeys.token(userMembers, "userdata", userData)})},
		{name: "user id token a string", code: msl.ErrMSLParseError, message: fromToken(object{"useridtoken": "x"})},
		{name: "service token of another master token", code: msl.ErrServiceTokenMasterTokenMismatch, message: fromToken(object{"servicetokens": []any{serviceToken(object{"mtserialnumber": 6})}})},
		{name: "service token without its user", code: msl.ErrServiceTokenUserIDTokenMismatch, message: fromToken(object{"servicetokens": []any{serviceToken(object{"uitserialnumber": 8})}})},
		{name: "service tokens as object", code: msl.ErrMSLParseError, message: fromToken(object{"servicetokens": object{}})},
		{name: "too many service tokens", code: msl.ErrMSLParseError, message: fromToken(object{"servicetokens": slices.Repeat([]any{serviceToken(nil)}, 65)})},
		{name: "service tokens of strings", code: msl.ErrMSLParseError, message: fromToken(object{"servicetokens": []any{"x"}})},
	}
}

func userAuthCases() []refusalCase {
	other := object{"useridtoken": userToken(nil)}
	barred := func(r *recorded) { r.directory["client1"].UserSchemes = []string{} }
	return []refusalCase{
		{name: "unknown user scheme", code: msl.ErrUnidentifiedUserAuthScheme, message: fromPSK(object{"userauthdata": object{"scheme": "X", "authdata": object{}}})},
		{name: "unconfigured user scheme", code: msl.ErrUserAuthFactoryNotFound, message: fromPSK(object{"userauthdata": object{"scheme": "USER_ID_TOKEN", "authdata": object{}}})},
		{name: "no password", code: msl.ErrMSLParseError, message: fromPSK(object{"userauthdata": object{"scheme": "EMAIL_PASSWORD", "authdata": object{"email": "x"}}})},
		{name: "blank e-mail", code: msl.ErrEmailPasswordBlank, message: fromPSK(passwordOf(" \t", "x"))},
		{name: "blank password", code: msl.ErrEmailPasswordBlank, message: fromPSK(passwordOf("x", ""))},
		{name: "unknown user", code: msl.ErrEmailPasswordIncorrect, message: fromPSK(passwordOf("x", "y"))},
		{name: "wrong password", code: msl.ErrEmailPasswordIncorrect, message: fromToken(passwordOf("user1@foo.com", "user2pwd"))},
		{name: "user scheme not permitted", code: msl.ErrUserAuthEntityIncorrectData, prepare: barred, message: fromPSK(object{"userauthdata": password})},
		{name: "not permitted before blank", code: msl.ErrUserAuthEntityIncorrectData, prepare: barred, message: fromPSK(passwordOf("", ""))},
		{name: "two users", code: msl.ErrUserIDTokenUserAuthDataMismatch, message: fromToken(other, passwordOf("user2@foo.com", "user2pwd"))},
		{name: "user of a sender that does not encrypt", code: msl.ErrUnencryptedMessageWithUserAuthData, message: rawKeys{}.message(byScheme("NONE", object{"identity": "client3"}), one(object{"userauthdata": password}), hello)},
		// A replayed message must not reach the user service.
		{name: "replayed before wrong password", code: msl.ErrMessageReplayedUnrecoverable, message: fromToken(object{"nonreplayableid": 1 << 20}, passwordOf("x", "y"))},
	}
}

func keyExchangeCases() []refusalCase {
	none := rawKeys{}
	everyExchange := func(r *recorded) { r.withEveryExchange() }
	noPSKExchange := func(r *recorded) { r.server.KeyExchanges = []msl.Responder{&keyx.SymmetricResponder{Store: r.store}} }
	fromNone := func(o object) []byte {
		return none.message(byScheme("NONE", object{"identity": "client3"}), one(o), hello)
	}
	asymmetric := func(mechanism string, key []byte) object {
		return keyRequest("ASYMMETRIC_WRAPPED", object{"keypairid": "x", "mechanism": mechanism, "publickey": key})
	}
	barred := func(r *recorded) { r.directory["client1"].KeyExchanges = []string{"ASYMMETRIC_WRAPPED"} }
	return []refusalCase{
		{name: "unknown scheme", code: msl.ErrUnidentifiedKeyXScheme, message: fromPSK(requests(keyRequest("X", object{})))},
		{name: "unconfigured scheme", code: msl.ErrKeyXFactoryNotFound, message: fromPSK(requests(keyRequest("DIFFIE_HELLMAN", object{})))},
		{name: "no keydata", code: msl.ErrMSLParseError, message: fromPSK(requests(object{"scheme": "SYMMETRIC_WRAPPED"}))},
		{name: "no keyid", code: msl.ErrMSLParseError, message: fromPSK(requests(keyRequest("SYMMETRIC_WRAPPED", object{})))},
		{name: "unknown keyid", code: msl.ErrUnidentifiedKeyXKeyID, message: fromPSK(requests(keyRequest("SYMMETRIC_WRAPPED", object{"keyid": "X"})))},
		{name: "pre-shared keys not configured", code: msl.ErrUnsupportedKeyXKeyID, prepare: noPSKExchange, message: fromPSK(requests(pskRequest))},
		{name: "session without a master token", code: msl.ErrKeyXMasterTokenMissing, message: fromPSK(requests(keyRequest("SYMMETRIC_WRAPPED", object{"keyid": "SESSION"})))},
		{name: "session", code: msl.ErrWrapNotSupported, message: sessionRaw.message(byToken(object{"renewalwindow": 1}), one(requests(keyRequest("SYMMETRIC_WRAPPED", object{"keyid": "SESSION"}))), hello)},
		{name: "unknown mechanism", code: msl.ErrUnidentifiedKeyXMechanism, message: fromPSK(requests(asymmetric("X", []byte{})))},
		{name: "unsupported mechanism", code: msl.ErrUnsupportedKeyXMechanism, message: fromPSK(requests(asymmetric("ECC", []byte("x"))))},
		{name: "public key of garbage", code: msl.ErrInvalidPublicKey, message: fromPSK(requests(asymmetric("RSA", []byte("x"))))},
		{name: "public key of garbage, more mechanisms", code: msl.ErrInvalidPublicKey, prepare: everyExchange, message: fromPSK(requests(asymmetric("RSA", []byte("x"))))},
		{name: "public key of garbage, mechanism before others", code: msl.ErrInvalidPublicKey, prepare: everyExchange, message: fromPSK(requests(asymmetric("JWE_RSA", []byte("x"))))},
		{name: "unsupported mechanism, more mechanisms", code: msl.ErrUnsupportedKeyXMechanism, prepare: everyExchange, message: fromPSK(requests(asymmetric("ECC", []byte("x"))))},
		{name: "no pre-shared key", code: msl.ErrEntityNotFound, message: fromNone(requests(pskRequest))},
		{name: "scheme not permitted", code: msl.ErrKeyXIncorrectData, prepare: barred, message: fromPSK(requests(pskRequest))},
		{name: "too many requests", code: msl.ErrMSLParseError, message: fromPSK(requests(slices.Repeat([]any{pskRequest}, 65)...))},
		{name: "requests as object", code: msl.ErrMSLParseError, message: fromPSK(object{"renewable": true, "keyrequestdata": object{}})},
		{name: "requests of numbers", code: msl.ErrMSLParseError, message: fromPSK(requests(1))},
	}
}

func payloadCases() []refusalCase {
	chunk := func(changes object) []byte { return pskClient1.message(byPSK("client1"), one(), with(hello, changes)) }
	two := func(second object) []byte {
		return pskClient1.message(byPSK("client1"), one(), with(hello, object{"endofmsg": nil}), with(hello, second))
	}
	head := pskClient1.message(byPSK("client1"), one())
	after := func(tail string) []byte { return append(bytes.Clone(head), tail...) }
	return []refusalCase{
		{name: "chunk of another sender", code: msl.ErrPayloadVerificationFailed, message: append(bytes.Clone(head), encode(pskClient2.signed("payload", pskClient2.encrypt(encode(hello))))...)},
		{name: "chunk without payload", code: msl.ErrMSLParseError, message: after(`{"signature":""}`)},
		{name: "garbage for a chunk", code: msl.ErrMSLParseError, message: after(`xyz`)},
		{name: "a comma between", code: msl.ErrMSLParseError, message: after(`,{}`)},
		{name: "sequence number negative", code: msl.ErrPayloadSequenceNumberOutOfRange, message: chunk(object{"sequencenumber": -1})},
		{name: "sequence number too big", code: msl.ErrPayloadSequenceNumberOutOfRange, message: chunk(object{"sequencenumber": tooBig})},
		{name: "sequence number 2", code: msl.ErrPayloadSequenceNumberMismatch, message: chunk(object{"sequencenumber": 2})},
		{name: "chunk twice", code: msl.ErrPayloadSequenceNumberMismatch, message: two(object{"sequencenumber": 1})},
		{name: "chunk left out", code: msl.ErrPayloadSequenceNumberMismatch, message: two(object{"sequencenumber": 3})},
		{name: "message id out of range", code: msl.ErrPayloadMessageIDOutOfRange, message: chunk(object{"messageid": tooBig})},
		{name: "chunk of another message", code: msl.ErrPayloadMessageIDMismatch, message: chunk(object{"messageid": 2})},
		{name: "other message before other place", code: msl.ErrPayloadMessageIDMismatch, message: chunk(object{"messageid": 2, "sequencenumber": 2})},
		{name: "no data in the middle", code: msl.ErrPayloadDataMissing, message: chunk(object{"data": "", "endofmsg": nil})},
		{name: "endofmsg a string", code: msl.ErrMSLParseError, message: chunk(object{"endofmsg": "true"})},
		{name: "compression without a name", code: msl.ErrUnidentifiedCompression, message: chunk(object{"compressionalgo": ""})},
		{name: "unknown compression", code: msl.ErrUnidentifiedCompression, message: chunk(object{"compressionalgo": "BROTLI"})},
		{name: "damaged compression", code: msl.ErrUncompressionError, message: chunk(object{"compressionalgo": "LZW", "data": []byte{0xff, 0xff, 0xff, 0xff}})},
		{name: "compression bomb", code: msl.ErrUncompressionError, message: chunk(object{"compressionalgo": "GZIP", "data": zeros(10 << 20)})},
	}
}

func TestRefusals(t *testing.T) {
	skipWithRace(t)
	for group, cases := range map[string][]refusalCase{
		"envelope": envelopeCases(), "sender": senderCases(), "header": headerCases(),
		"user": userAuthCases(), "key exchange": keyExchangeCases(), "payload": payloadCases(),
	} {
		for _, c := range cases {
			t.Run(group+"/"+c.name, func(t *testing.T) {
				r := newRecorded(t)
				if c.prepare != nil {
					c.prepare(r)
				}
				id := int64(1)
				if c.unread {
					id = -1
				}
				e := r.mustRefuse(t, c.message, c.code, id)
				if e.called && group != "payload" && group != "key exchange" && c.prepare == nil {
					t.Error("the application was called")
				}
				r.checkUnharmed(t)
			})
		}
	}
}

// checkUnharmed looks for what a refused message may have left behind.
func (r *recorded) checkUnharmed(t *testing.T) {
	t.Helper()
	r.server.Close()
	r.server.Peers[0].(interface{ Close() error }).Close()
	if n, _ := r.store.Live(); n != 0 {
		t.Errorf("%d keys are still open", n)
	}
}

func TestReplayedIDs(t *testing.T) {
	r := newRecorded(t)
	for _, step := range []struct {
		id   int64
		want msl.Code
	}{
		{1, -1}, {1, msl.ErrMessageReplayed}, {2, -1}, {1, msl.ErrMessageReplayed}, {0, msl.ErrMessageReplayed},
		{100, -1}, {95, msl.ErrMessageReplayed}, {94, msl.ErrMessageReplayedUnrecoverable}, {1, msl.ErrMessageReplayedUnrecoverable},
		{100 + 65537, msl.ErrMessageReplayedUnrecoverable}, {100 + 65536, -1},
	} {
		message := fromToken(object{"nonreplayableid": step.id})
		if step.want >= 0 {
			if e := r.mustRefuse(t, message, step.want, 1); e.called {
				t.Errorf("id %d reached the application", step.id)
			}
			continue
		}
		if e := r.serve(message); e.served != nil || !e.called || !e.message.NonReplayable {
			t.Errorf("id %d: %+v", step.id, e)
		}
	}
}

func TestReplayAtTheWrap(t *testing.T) {
	const max = 1 << 53
	for _, c := range []struct {
		largest, id int64
		want        error
	}{
		{max, 0, nil}, {max, max, msl.ErrMessageReplayed}, {max, max - 5, msl.ErrMessageReplayed}, {max, max - 6, msl.ErrMessageReplayedUnrecoverable},
		{max, 65535, nil}, {max, 65536, msl.ErrMessageReplayedUnrecoverable}, {max - 10, 65525, nil}, {max - 10, 65526, msl.ErrMessageReplayedUnrecoverable},
		{0, 0, msl.ErrMessageReplayed}, {0, max, msl.ErrMessageReplayedUnrecoverable}, {max - 65536, 0, msl.ErrMessageReplayedUnrecoverable},
		{5, -1, msl.ErrNonReplayableIDOutOfRange}, {5, max + 1, msl.ErrNonReplayableIDOutOfRange},
	} {
		if got := msl.CheckNonReplayableID(c.largest, c.id); got != c.want {
			t.Errorf("id %d after %d: %v, want %v", c.id, c.largest, got, c.want)
		}
	}
}

// An answer that cannot have the protection it needs becomes an error.
func TestAnswerProtection(t *testing.T) {
	for name, c := range map[string]struct {
		need func(*msl.ResponseWriter)
		want msl.Code
		own  string
	}{
		"encrypted":     {func(w *msl.ResponseWriter) { w.Encrypted = true }, msl.ErrResponseRequiresEncryption, "RSA"},
		"user":          {func(w *msl.ResponseWriter) { w.Encrypted = false; w.SetUser("u") }, msl.ErrResponseRequiresMasterToken, "RSA"},
		"entity token":  {func(w *msl.ResponseWriter) { w.Encrypted = false; w.SetServiceToken("n", []byte("d"), msl.BindEntity) }, msl.ErrResponseRequiresMasterToken, "RSA"},
		"authenticated": {func(w *msl.ResponseWriter) { w.Authenticated, w.Encrypted = true, false }, msl.ErrResponseRequiresIntegrityProtection, "NONE"},
	} {
		r := newRecorded(t)
		if c.own == "NONE" {
			r.server.Local = localSchemes(t)["NONE"]
		}
		var out bytes.Buffer
		err := r.server.Serve(context.Background(), "test", bytes.NewReader(fromPSK()), &out, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			c.need(w)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		checkErrorCode(t, name, out.Bytes(), c.want)
	}
}

func checkErrorCode(t *testing.T, name string, wire []byte, want msl.Code) {
	t.Helper()
	a, _ := readAnswer(wire, newRecorded(t).public(), nil, func(answerHeader) (*rawKeys, error) { return nil, nil })
	if a.err == nil || a.err.InternalCode != 100000+int(want) || a.err.ErrorCode != int(want.Response()) {
		t.Errorf("%s: %s, want %v", name, wire, want)
	}
}
