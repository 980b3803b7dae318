package msl_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// spellings are other objects with the tokendata and the signature of a token.
func spellings(t *testing.T, token []byte, n int) (list [][]byte) {
	t.Helper()
	var parts struct{ TokenData, Signature []byte }
	if err := json.Unmarshal(token, &parts); err != nil {
		t.Fatal(err)
	}
	data, signature := base64.StdEncoding.EncodeToString(parts.TokenData), base64.StdEncoding.EncodeToString(parts.Signature)
	envelope := base64.StdEncoding.EncodeToString(encode(object{"version": 2, "algorithm": "HmacSHA256", "signature": parts.Signature}))
	for i := range n {
		list = append(list,
			fmt.Appendf(nil, `{"x":%d,"tokendata":"%s","signature":"%s"}`, i, data, signature),
			fmt.Appendf(nil, `{"signature":"%s","y":{"z":[%d]},"tokendata":"%s"}`, signature, i, data),
			fmt.Appendf(nil, `{%s"tokendata" : "%s","signature":"%s"}`, strings.Repeat(" ", i%50), data, signature),
			fmt.Appendf(nil, `{"tokendata":"%s\n%s","signature":"%s"}`, data[:4*(i%9)], data[4*(i%9):], signature),
			fmt.Appendf(nil, `{"tokendata":"%s","signature":"%s","n":%d}`, data, envelope, i))
	}
	return list
}

// under puts a token as it is spelled into a message.
func under(token []byte, message []byte) []byte {
	return append(append([]byte(`{"mastertoken":`), token...), append([]byte{','}, message[1:]...)...)
}

// TestJunkIsNotRemembered sends what anyone who has seen a master token can send:
// messages with the token in other spellings, with a wrong signature.
func TestJunkIsNotRemembered(t *testing.T) {
	skipWithRace(t)
	r := newRecorded(t)
	before, _ := r.store.Live()
	recorded := encode(recordedToken(nil))
	message := sessionRaw.message(object{}, one(), hello)
	forged := rawKeys{"client1_1", sessionRaw.encryption, serviceKeys.mac}.message(object{}, one(), hello)
	for _, token := range spellings(t, recorded, 100) {
		r.mustRefuse(t, under(token, forged), msl.ErrMessageMasterTokenBasedVerificationFailed, -1)
	}
	if live, _ := r.store.Live(); live != before || r.server.Remembered() != 0 {
		t.Errorf("%d keys for %d sessions are left of junk", live-before, r.server.Remembered())
	}
	for _, token := range spellings(t, recorded, 100) {
		if got, err := r.server.Receive(context.Background(), bytes.NewReader(under(token, message))); err != nil || got.Identity != "client1" {
			t.Fatalf("%s: %+v, %v", token, got, err)
		}
	}
	if live, _ := r.store.Live(); live != before+2 || r.server.Remembered() != 1 {
		t.Errorf("%d keys for %d sessions of one token", live-before, r.server.Remembered())
	}
}

// TestJunkEvictsNobody checks that the sessions and key sets of devices stay open, however
// many others strangers name.
func TestJunkEvictsNobody(t *testing.T) {
	r := newRecorded(t)
	psk := &entityauth.PSK{Directory: r.directory, Store: r.store, Remember: 1}
	t.Cleanup(func() { psk.Close() })
	r.server.Peers[0], r.server.Limits.Sessions = psk, 1
	who := func(identity string) object {
		return object{"entityauthdata": object{"scheme": "PSK", "authdata": object{"identity": identity}}}
	}
	receive := func(message []byte) {
		t.Helper()
		if _, err := r.server.Receive(context.Background(), bytes.NewReader(message)); err != nil {
			t.Fatal(err)
		}
	}
	recorded := recordedToken(nil)
	receive(sessionRaw.message(object{"mastertoken": recorded}, one(), hello))
	receive(pskClient1.message(who("client1"), one(), hello))
	live, _ := r.store.Live()
	mine := must(psk.KeysOf(context.Background(), "client1"))
	mine.Release()
	for i := range 20 {
		other := recordedToken(object{"serialnumber": 100 + i})
		r.mustRefuse(t, pskClient1.message(object{"mastertoken": other}, one(), hello), msl.ErrMessageMasterTokenBasedVerificationFailed, -1)
		r.mustRefuse(t, pskClient1.message(who("client2"), one(), hello), msl.ErrMessageEntityDataBasedVerificationFailed, -1)
		must(psk.KeysOf(context.Background(), "client2")).Release()
		must(r.server.OpenMasterToken(must(msl.ParseMasterToken(encode(other))))).Release()
	}
	if after, _ := r.store.Live(); after != live {
		t.Errorf("%d keys, %d before", after, live)
	}
	if again := must(psk.KeysOf(context.Background(), "client1")); again != mine {
		t.Error("the key set of a device was pushed out")
	} else {
		again.Release()
	}
	first := must(r.server.OpenMasterToken(must(msl.ParseMasterToken(encode(recorded)))))
	second := must(r.server.OpenMasterToken(must(msl.ParseMasterToken(encode(recorded)))))
	if first != second {
		t.Error("the session of a device was pushed out")
	}
	first.Release()
	second.Release()
}

// TestModelGroupsRememberTheProven names devices of a model group that are not there.
func TestModelGroupsRememberTheProven(t *testing.T) {
	r := newRecorded(t)
	group := provisionRaw(t, r.store, "group", keystore.AES128CBC, bytes.Repeat([]byte{7}, 16)).(keystore.Cipher)
	mgk := &entityauth.MGK{Importer: r.store, Group: func(context.Context, string) (entityauth.ModelGroup, error) {
		return entityauth.ModelGroup{Name: "group", Key: group}, nil
	}}
	t.Cleanup(func() { mgk.Close() })
	r.server.Peers = append(r.server.Peers, mgk)
	before, _ := r.store.Live()
	who := func(identity string) object {
		return object{"entityauthdata": object{"scheme": "MGK", "authdata": object{"identity": identity}}}
	}
	for i := range 20 {
		r.mustRefuse(t, pskClient1.message(who(fmt.Sprint("device-", i)), one(), hello), msl.ErrMessageEntityDataBasedVerificationFailed, -1)
	}
	if live, _ := r.store.Live(); live != before {
		t.Errorf("%d keys of devices that proved nothing", live-before)
	}
	raw := must(entityauth.DeriveGroupKeys(group, "device"))
	device := rawKeys{"device", raw[:16], raw[16:]}
	for range 2 {
		if _, err := r.server.Receive(context.Background(), bytes.NewReader(device.message(who("device"), one(), hello))); err != nil {
			t.Fatal(err)
		}
	}
	if live, _ := r.store.Live(); live != before+2 {
		t.Errorf("%d keys of one device", live-before)
	}
}

// TestIssuedSessionsPushOutNobody has one device ask for token after token, and use
// none.
func TestIssuedSessionsPushOutNobody(t *testing.T) {
	skipWithRace(t)
	n := softNetwork(t)
	n.server.Limits.Sessions = 16
	honest := n.pskClient("honest")
	mustSend(t, honest, secret("get tokens"), 2)
	mustSend(t, honest, secret("use them"), 2)
	held := honest.Held().MasterToken
	first := must(n.server.OpenMasterToken(held))
	first.Release()
	psk := n.pskEntity("greedy")
	for range 100 {
		c := n.client(psk, &keyx.SymmetricOfferer{Keys: psk.Keys})
		mustSend(t, c, secret("get tokens"), 2)
	}
	if got := n.server.Remembered(); got > 1+16/8 {
		t.Errorf("%d sessions are remembered", got)
	}
	if again := must(n.server.OpenMasterToken(held)); again != first {
		t.Error("a session that is used was pushed out")
	} else {
		again.Release()
	}
}

// TestUserTokensBySignedBytes opens a user ID token once, however it is spelled.
func TestUserTokensBySignedBytes(t *testing.T) {
	r := newRecorded(t)
	count := &countingCipher{Cipher: r.server.Issuer.Keys[0].Encryption}
	r.server.Issuer.Keys[0].Encryption = count
	recorded := recordedToken(nil)
	for i, token := range spellings(t, encode(recordedUser(nil)), 4) {
		message := sessionRaw.message(object{"mastertoken": recorded}, one(object{"useridtoken": json.RawMessage(token)}), hello)
		if got, err := r.server.Receive(context.Background(), bytes.NewReader(message)); err != nil || got.User != "user1@foo.com" {
			t.Fatalf("%d: %+v, %v", i, got, err)
		}
	}
	if count.decryptions != 2 {
		t.Errorf("%d tokens were decrypted: want a master token and a user ID token", count.decryptions)
	}
}

type countingCipher struct {
	keystore.Cipher
	decryptions int
}

func (c *countingCipher) Decrypt(iv, ciphertext []byte) ([]byte, error) {
	c.decryptions++
	return c.Cipher.Decrypt(iv, ciphertext)
}
