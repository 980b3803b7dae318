package msl_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// FuzzAnswerInside has a client of a server, and one of two peers, read answers to the message with
// the id 0: what they refuse leaves them with the tokens that they had, and says why.
func FuzzAnswerInside(f *testing.F) {
	delivered := object{"mastertoken": masterToken(nil), "scheme": "SYMMETRIC_WRAPPED", "keydata": object{"keyid": "PSK", "encryptionkey": zeros(1), "hmackey": zeros(1)}}
	for _, h := range []object{one(), one(requests(pskRequest)), one(object{"handshake": true}, requests(pskRequest)),
		one(object{"keyresponsedata": delivered, "recipient": "device"}),
		one(object{"useridtoken": userToken(nil), "servicetokens": []any{serviceToken(object{"servicedata": []byte("x")})}}),
		one(object{"peermastertoken": masterToken(nil), "peeruseridtoken": userToken(nil), "peerservicetokens": []any{serviceToken(nil)}})} {
		f.Add(encode(h), encode(hello))
	}
	client, _ := unprovenServer(f)
	r := newRecorded(f)
	other := &msl.Client{Local: &entityauth.NoneEntity{Identity: "client3"}, KeyExchanges: []msl.Offerer{clientKeys(f)["SYMMETRIC_WRAPPED"]}, Time: r.clock, Rand: zeroReader{}}
	for _, c := range []*msl.Client{client, other} {
		if _, err := c.HeldTokens(f.Context(), ""); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, header, chunk []byte) {
		checkAnswer(t, client, func() (*msl.Response, error) {
			answer := rawKeys{}.message(byScheme("NONE", object{"identity": "server"}), header, chunk)
			return client.Answer(t.Context(), &msl.Request{}, 0, io.NopCloser(bytes.NewReader(answer)))
		})
		checkAnswer(t, other, func() (*msl.Response, error) {
			conn := msl.NewConn(&fixedConn{Reader: bytes.NewReader(pskClient1.message(byPSK("client1"), header, chunk))}, r.server, other)
			return conn.Request(t.Context(), &msl.Request{})
		})
	})
}

func checkAnswer(t *testing.T, client *msl.Client, get func() (*msl.Response, error)) {
	before := client.Held()
	response, err := get()
	if err != nil && !reflect.DeepEqual(client.Held(), before) {
		t.Errorf("tokens are held after %v", err)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	if !errors.Is(err, msl.ErrTruncated) {
		hasCode(t, err)
	}
}
