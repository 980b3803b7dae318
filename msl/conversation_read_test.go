package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// recordedClient is the client of a label, as it was before one exchange.
func recordedClient(t *testing.T, label string) *msl.Client {
	scheme, _, _ := strings.Cut(label, "-")
	own := localSchemes(t)[scheme]
	if own == nil {
		own = localSchemes(t)["PSK"]
	}
	store := newStore(t)
	server := directory{"server1": {Identity: "server1", Scheme: "RSA", KeyID: "rsakeyid1", PublicKey: publicKey(t, "server1_rsa2048")}}
	keys := clientKeys(t)
	c := &msl.Client{
		Local: own, Peers: []msl.EntityScheme{&entityauth.RSA{Directory: server}},
		KeyExchanges:  []msl.Offerer{keys["SYMMETRIC_WRAPPED"], keys["ASYMMETRIC_WRAPPED"]},
		ServiceTokens: msl.ServiceTokenKeys{"": symmetric(t, store, serviceKeys)},
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// hold gives a client the tokens that a recorded request used.
func hold(t *testing.T, c *msl.Client, request []byte, req recordedMessage) {
	t.Helper()
	var sent wireHeader
	if err := json.NewDecoder(bytes.NewReader(request)).Decode(&sent); err != nil {
		t.Fatal(err)
	}
	raw, store := req.MasterToken.raw(), newStore(t)
	e, err := store.Import(keystore.AES128CBC, raw.encryption)
	m, err2 := store.Import(keystore.HMACSHA256, raw.mac)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := c.Hold(ctx, sent.MasterToken, msl.NewSessionKeys(e.(keystore.Cipher), m.(keystore.MAC))); err != nil {
		t.Fatal(err)
	}
	if req.HeaderData.UserIDToken == nil {
		return
	}
	inside, err := raw.decrypt(sent.HeaderData)
	var h answerHeader
	if err := errors.Join(err, raw.verify(sent.HeaderData, *sent.Signature), json.Unmarshal(inside, &h), c.HoldUser(ctx, "user1", h.UserIDToken)); err != nil {
		t.Fatal(err)
	}
}

// known reports whether the client has the exchange that an answer ends.
func known(want recordedMessage, req recordedMessage) bool {
	if want.HeaderData == nil || want.HeaderData.KeyResponseData == nil {
		return true
	}
	for _, k := range req.HeaderData.KeyRequestData {
		if k.KeyData.Mechanism == "RSA" || k.KeyData.KeyID == "PSK" {
			return true
		}
	}
	return false
}

// TestConversationsRead lets a Client read every recorded answer.
func TestConversationsRead(t *testing.T) {
	skipWithRace(t)
	read, unknown := 0, 0
	for _, c := range readConversations(t) {
		for i, e := range c.exchanges {
			t.Run(fmt.Sprintf("%s/%d", c.label, i+1), func(t *testing.T) {
				client := recordedClient(t, c.label)
				var sent int64
				if e.Req.HeaderData != nil {
					sent = e.Req.HeaderData.MessageID
				}
				if e.Req.MasterToken != nil {
					hold(t, client, c.request(t, i), e.Req)
				}
				user := ""
				if e.Req.HeaderData != nil && (e.Req.HeaderData.UserIDToken != nil || e.Req.HeaderData.UserAuthData != nil) {
					user = "user1"
				}
				body := &closeCounter{Reader: bytes.NewReader(c.response(t, i))}
				answer, err := client.Answer(context.Background(), &msl.Request{User: user, Recipient: "server1"}, sent, body)
				if !known(e.Resp, e.Req) {
					unknown++
					checkUnknownExchange(t, client, err, e.Req)
					return
				}
				read++
				if e.Resp.ErrorData != nil {
					checkPeerError(t, e.Resp, err)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				checkRead(t, client, user, answer, e.Req, e.Resp)
				if answer.Body.Close(); body.closed != 1 {
					t.Errorf("the stream was closed %d times", body.closed)
				}
			})
		}
	}
	if read < 70 || unknown < 20 {
		t.Errorf("%d answers read, %d of unknown exchanges", read, unknown)
	}
}

type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error {
	c.closed++
	return nil
}

func checkUnknownExchange(t *testing.T, c *msl.Client, err error, req recordedMessage) {
	t.Helper()
	if !errors.Is(err, msl.ErrKeyXFactoryNotFound) && !errors.Is(err, msl.ErrUnwrapError) {
		t.Errorf("an answer of an exchange that is not there: %v", err)
	}
	held := c.Held().MasterToken
	if req.MasterToken == nil && held != nil || req.MasterToken != nil && held.SequenceNumber != req.MasterToken.SequenceNumber {
		t.Errorf("the client holds %+v", held)
	}
}

func checkPeerError(t *testing.T, want recordedMessage, err error) {
	t.Helper()
	var peer *msl.PeerError
	if !errors.As(err, &peer) {
		t.Errorf("%v, want an error of the peer", err)
		return
	}
	if int(peer.Code) != want.ErrorData.InternalCode-100000 || int(peer.Response) != want.ErrorData.ErrorCode ||
		peer.MessageID != want.ErrorData.MessageID || peer.Identity != "server1" || !errors.Is(err, peer.Code) {
		t.Errorf("peer error %+v, want %+v", peer, want.ErrorData)
	}
}

func checkRead(t *testing.T, c *msl.Client, user string, answer *msl.Response, req, want recordedMessage) {
	t.Helper()
	if answer.MessageID != want.HeaderData.MessageID {
		t.Errorf("message id %d", answer.MessageID)
	}
	data := []byte(nil)
	if !req.HeaderData.Handshake {
		var err error
		if data, err = io.ReadAll(answer.Body); err != nil {
			t.Error(err)
		}
	}
	if string(data) != want.payload() {
		t.Errorf("payload %q, want %q", data, want.payload())
	}
	held := c.Held()
	mt := req.MasterToken
	if k := want.HeaderData.KeyResponseData; k != nil {
		mt = &k.MasterToken
		if answer.KeyExchange != k.Scheme {
			t.Errorf("key exchange %q", answer.KeyExchange)
		}
	}
	if held.MasterToken.SerialNumber != mt.SerialNumber || held.MasterToken.SequenceNumber != mt.SequenceNumber {
		t.Errorf("the client holds %+v, want %+v", held.MasterToken, mt)
	}
	checkSessionKeys(t, held.Keys, mt.SessionData.EncryptionKey, mt.SessionData.SignatureKey)
	if u := want.HeaderData.UserIDToken; u != nil && (held.UserIDTokens[user] == nil || held.UserIDTokens[user].SerialNumber != u.SerialNumber) {
		t.Errorf("the client holds the users %v, want %+v", held.UserIDTokens, u)
	}
	var tokens, wanted []string
	for _, s := range held.ServiceTokens {
		tokens = append(tokens, s.Name+"="+string(s.Data))
	}
	for _, s := range want.HeaderData.ServiceTokens {
		wanted = append(wanted, s.Name+"="+s.ServiceData)
	}
	slices.Sort(tokens)
	slices.Sort(wanted)
	if !slices.Equal(tokens, wanted) {
		t.Errorf("the client holds the service tokens %q, want %q", tokens, wanted)
	}
}
