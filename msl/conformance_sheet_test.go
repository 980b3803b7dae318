package msl_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// TestCheckOrder sends messages that are wrong in two ways: the check that comes
// first in the protocol decides.
func TestCheckOrder(t *testing.T) {
	skipWithRace(t)
	without := func(who object) []byte {
		return encode(with(with(pskClient1.signed("headerdata", pskClient1.encrypt(encode(one()))), who), object{"signature": nil}))
	}
	fromNobody := func(entity any) []byte {
		return rawKeys{}.message(object{"entityauthdata": entity}, one(), hello)
	}
	damaged := func(member string) object {
		return object{"compressionalgo": "LZW", member: []byte{0xff, 0xff, 0xff, 0xff}}
	}
	unknownChunk := with(hello, object{"compressionalgo": "X", "sequencenumber": 5})
	for _, c := range []struct {
		name    string
		want    msl.Code
		unread  bool
		message []byte
	}{
		{"unknown entity scheme, no signature", msl.ErrUnidentifiedEntityAuthScheme, true, without(byScheme("X", object{}))},
		{"unconfigured entity scheme, no signature", msl.ErrEntityAuthFactoryNotFound, true, without(byScheme("ECC", object{}))},
		{"certificate that is not Base64, no signature", msl.ErrX509CertInvalid, true, without(byScheme("X509", object{"x509certificate": "?"}))},
		{"certificate of garbage, no header data", msl.ErrX509CertParseError, true, encode(with(byScheme("X509", object{"x509certificate": "AAAA"}), object{"signature": ""}))},
		{"certificate of garbage, signature a number", msl.ErrX509CertParseError, true, encode(with(byScheme("X509", object{"x509certificate": "AAAA"}), object{"headerdata": "", "signature": 1}))},
		{"empty token data, no signature", msl.ErrMasterTokenTokenDataMissing, true, without(object{"mastertoken": object{"tokendata": ""}})},
		{"unknown entity, empty header data", msl.ErrEntityNotFound, true, encode(with(byPSK("nobody"), object{"headerdata": "", "signature": ""}))},
		{"foreign master token, empty header data", msl.ErrMasterTokenUntrusted, true, encode(object{"mastertoken": serviceKeys.token(masterMembers, "sessiondata", sessionData), "headerdata": "", "signature": ""})},
		{"message id out of range, no renewable", msl.ErrMessageIDOutOfRange, true, pskClient1.message(byPSK("client1"), object{"messageid": -1}, hello)},
		{"key response of an unknown scheme, bad user id token", msl.ErrUnidentifiedKeyXScheme, false, fromPSK(object{"keyresponsedata": object{"mastertoken": masterToken(nil), "scheme": "X", "keydata": object{}}, "useridtoken": object{}})},
		{"bad user id token, unknown user scheme", msl.ErrUserIDTokenTokenDataMissing, false, fromToken(object{"useridtoken": object{"tokendata": "", "signature": ""}, "userauthdata": object{"scheme": "X", "authdata": object{}}})},
		{"unknown user scheme, bad service token", msl.ErrUnidentifiedUserAuthScheme, false, fromToken(object{"userauthdata": object{"scheme": "X", "authdata": object{}}, "servicetokens": []any{object{}}})},
		{"bad service token, id out of range", msl.ErrServiceTokenTokenDataMissing, false, fromToken(object{"servicetokens": []any{object{"tokendata": "", "signature": ""}}, "nonreplayableid": -1})},
		{"id out of range, no renewable", msl.ErrNonReplayableIDOutOfRange, false, sessionRaw.message(byToken(nil), object{"messageid": 1, "nonreplayableid": -1}, hello)},
		{"bad capabilities, unknown key exchange", msl.ErrMSLParseError, false, fromPSK(requests(keyRequest("X", object{})), object{"capabilities": 1})},
		{"unknown key exchange, bad handshake", msl.ErrUnidentifiedKeyXScheme, false, fromPSK(requests(keyRequest("X", object{})), object{"handshake": true, "renewable": false})},
		{"bad handshake, expired", msl.ErrHandshakeDataMissing, false, sessionRaw.message(byToken(expired), one(object{"handshake": true}), hello)},
		{"expired, replayed", msl.ErrMessageExpiredNotRenewable, false, sessionRaw.message(byToken(expired), one(object{"nonreplayableid": 1 << 20}), hello)},
		{"chunk without signature, damaged", msl.ErrMSLParseError, false, append(pskClient1.message(byPSK("client1"), one()), `{"payload":"AAAA"}`...)},
		{"chunk out of range and of another message", msl.ErrPayloadSequenceNumberOutOfRange, false, pskClient1.message(byPSK("client1"), one(), with(hello, object{"sequencenumber": -1, "messageid": -1}))},
		{"chunk of an unknown compression, out of place", msl.ErrUnidentifiedCompression, false, pskClient1.message(byPSK("client1"), one(), unknownChunk)},
		{"damaged service token, of another master token", msl.ErrUncompressionError, false, fromToken(object{"servicetokens": []any{serviceToken(with(damaged("servicedata"), object{"mtserialnumber": 6}))}})},
		{"damaged service token, of another user", msl.ErrUncompressionError, false, fromToken(object{"servicetokens": []any{serviceToken(with(damaged("servicedata"), object{"uitserialnumber": 6}))}})},
		{"damaged service token, then one of another master token", msl.ErrUncompressionError, false, fromToken(object{"servicetokens": []any{serviceToken(damaged("servicedata")), serviceToken(object{"mtserialnumber": 6})}})},
		{"damaged service token, id out of range", msl.ErrUncompressionError, false, fromToken(object{"servicetokens": []any{serviceToken(damaged("servicedata"))}, "nonreplayableid": -1})},
		{"damaged service token, unknown key exchange", msl.ErrUncompressionError, false, fromToken(object{"servicetokens": []any{serviceToken(damaged("servicedata"))}}, requests(keyRequest("X", object{})))},
		{"damaged chunk of another message", msl.ErrUncompressionError, false, pskClient1.message(byPSK("client1"), one(), with(hello, with(damaged("data"), object{"messageid": 2})))},
		{"damaged chunk out of place", msl.ErrUncompressionError, false, pskClient1.message(byPSK("client1"), one(), with(hello, with(damaged("data"), object{"sequencenumber": 5})))},
		{"compression bomb of another message", msl.ErrUncompressionError, false, pskClient1.message(byPSK("client1"), one(), with(hello, object{"compressionalgo": "GZIP", "data": zeros(10 << 20), "messageid": 2}))},
		{"unknown entity scheme, no authdata", msl.ErrUnidentifiedEntityAuthScheme, true, fromNobody(object{"scheme": "X"})},
		{"unconfigured entity scheme, authdata a string", msl.ErrEntityAuthFactoryNotFound, true, fromNobody(object{"scheme": "ECC", "authdata": "x"})},
		{"unknown user scheme, no authdata", msl.ErrUnidentifiedUserAuthScheme, false, fromPSK(object{"userauthdata": object{"scheme": "X"}})},
		{"unconfigured user scheme, authdata a number", msl.ErrUserAuthFactoryNotFound, false, fromPSK(object{"userauthdata": object{"scheme": "USER_ID_TOKEN", "authdata": 1}})},
		{"unknown key exchange, no keydata", msl.ErrUnidentifiedKeyXScheme, false, fromPSK(requests(object{"scheme": "X"}))},
		{"unconfigured key exchange, keydata an array", msl.ErrKeyXFactoryNotFound, false, fromPSK(requests(object{"scheme": "JWE_LADDER", "keydata": []any{}}))},
		{"key response of an unknown scheme, no keydata", msl.ErrUnidentifiedKeyXScheme, false, fromPSK(object{"keyresponsedata": object{"mastertoken": masterToken(nil), "scheme": "X"}})},
		{"unknown key exchange of a user, expired", msl.ErrUnidentifiedKeyXScheme, false, sessionRaw.message(byToken(expired), one(object{"userauthdata": password}, requests(keyRequest("X", object{}))), hello)},
		{"user id token without a user, of another master token", msl.ErrUserIDTokenIdentityInvalid, false, fromToken(object{"useridtoken": issuerKeys.token(with(userMembers, object{"mtserialnumber": 6}), "userdata", object{"identity": ""})})},
		{"empty chunk, out of place", msl.ErrPayloadDataMissing, false, pskClient1.message(byPSK("client1"), one(), with(hello, object{"data": "", "endofmsg": nil, "sequencenumber": 5}))},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := int64(1)
			if c.unread {
				id = -1
			}
			newRecorded(t).mustRefuse(t, c.message, c.want, id)
		})
	}
}

// A key response names the wrapping key: an unknown one, or another than the one
// requested. What it wraps has a length that AES Key Wrap cannot write, or does not unwrap.
func TestSymmetricWrappedResponse(t *testing.T) {
	offer, err := clientKeys(t)["SYMMETRIC_WRAPPED"].Offer(t.Context(), msl.Requester{})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]msl.Code{"X": msl.ErrUnidentifiedKeyXKeyID, "SESSION": msl.ErrKeyXResponseRequestMismatch} {
		_, err := offer.Accept(t.Context(), encode(object{"keyid": id, "encryptionkey": "", "hmackey": ""}))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", id, err, want)
		}
	}
	for n, want := range map[int]msl.Code{23: msl.ErrCiphertextIllegalBlockSize, 24: msl.ErrUnwrapError} {
		_, err := offer.Accept(t.Context(), encode(object{"keyid": "PSK", "encryptionkey": random(n), "hmackey": random(n)}))
		if !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", n, err, want)
		}
	}
}

// TestUserReauthUnproven has a server that proves nothing, and that cannot read a
// user ID token: the request is sent again without the token, which is kept until
// another one comes.
func TestUserReauthUnproven(t *testing.T) {
	n := softNetwork(t)
	n.server.Local = &entityauth.NoneEntity{Identity: "server"}
	c := n.pskClient("device")
	c.Peers = []msl.EntityScheme{&entityauth.None{Anyone: true}}
	mustSend(t, c, secret("first"), 2)
	foreign := *n.server.Issuer
	other := softNetwork(t)
	foreign.Keys = other.server.Issuer.Keys
	uit, err := foreign.IssueUser("user@example.com", c.Held().MasterToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.HoldUser(t.Context(), "user@example.com", uit.Bytes()); err != nil {
		t.Fatal(err)
	}
	mustSend(t, c, secret("second"), 4)
	if held := c.Held().UserIDTokens["user@example.com"]; held == nil || held.SerialNumber == uit.SerialNumber {
		t.Errorf("the client holds %+v", held)
	}
	mustSend(t, c, secret("third"), 2)
}

// TestPeerKeyResponse reads a recorded key response of a peer: it delivers keys,
// and its payload is not under them but under its sender's own.
func TestPeerKeyResponse(t *testing.T) {
	var v struct{ Cases []messageCase }
	readVectors(t, "spec/messages_p2p.json", &v)
	read := 0
	for _, c := range v.Cases {
		if c.Parsed.OK == nil || !c.Parsed.OK.KeyResponseData {
			continue
		}
		read++
		r := newRecorded(t)
		client := &msl.Client{Local: localSchemes(t)["PSK"], KeyExchanges: []msl.Offerer{clientKeys(t)["SYMMETRIC_WRAPPED"]}, Time: r.clock,
			Rand: io.MultiReader(bytes.NewReader(binary.BigEndian.AppendUint64(nil, uint64(c.Parsed.OK.MessageID-1))), rand.Reader)}
		t.Cleanup(func() { client.Close() })
		conn := msl.NewConn(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(c.Message.Bytes), io.Discard}, r.server, client)
		answer, err := conn.Request(context.Background(), &msl.Request{Recipient: c.Parsed.OK.Identity, Body: msl.BytesBody([]byte("x"))})
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, answer.Body); got != string(c.Parsed.OK.Payload) || answer.KeyExchange != "SYMMETRIC_WRAPPED" {
			t.Errorf("read %q, %+v", got, answer)
		}
		if held := client.Held().MasterToken; held == nil || held.SequenceNumber != 1 {
			t.Errorf("the client holds %+v", held)
		}
	}
	if read != 1 {
		t.Errorf("%d key responses", read)
	}
}
