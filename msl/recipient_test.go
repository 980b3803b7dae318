package msl_test

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// An impostor is a registered entity that passes messages of others on as its own.
type impostor struct {
	who object
	key msl.SigningKey
}

func newImpostor(t *testing.T, n *network) impostor {
	store := soft.New()
	t.Cleanup(func() { store.Close() })
	key := provision(t, store, "impostor", keystore.RSASign2048).(crypto.Signer)
	n.directory["impostor"] = &msl.Entity{Identity: "impostor", Scheme: "RSA", KeyID: "k", PublicKey: key.Public()}
	return impostor{byScheme("RSA", object{"identity": "impostor", "pubkeyid": "k"}), msl.SigningKey{Key: key}}
}

// steal signs what another entity wrote.
func (i impostor) steal(t *testing.T, message []byte) []byte {
	var outer wireHeader
	if err := json.Unmarshal(message, &outer); err != nil {
		t.Fatal(err)
	}
	signature, err := i.key.Sign(outer.HeaderData)
	if err != nil {
		t.Fatal(err)
	}
	return encode(with(i.who, object{"headerdata": outer.HeaderData, "signature": signature}))
}

// TestUnknownKeyShare has another entity pass a key request on as its own. Nothing
// of the victim's data is sent under the keys that it gets.
func TestUnknownKeyShare(t *testing.T) {
	n := softNetwork(t)
	i := newImpostor(t, n)
	c := n.rsaClient("victim")
	n.handler = func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
		t.Errorf("the data came as from %q", m.Identity)
		return nil
	}
	messages := 0
	n.intercept = func(message []byte) []byte {
		if messages++; messages > 1 {
			return message
		}
		return i.steal(t, message)
	}
	_, _, err := send(t, c, secret("x"))
	if !errors.Is(err, msl.ErrMessageRecipientMismatch) || !strings.Contains(err.Error(), `"impostor"`) {
		t.Errorf("got %v", err)
	}
	if messages != 1 || c.Held().MasterToken != nil {
		t.Errorf("%d messages, token %v", messages, c.Held().MasterToken)
	}
	n.intercept, n.handler = nil, echo
	mustSend(t, c, secret("x"), 4)
}

// TestRecipientNamed checks that answers with keys name the entity they are for, and that
// other answers do not.
func TestRecipientNamed(t *testing.T) {
	r := newRecorded(t)
	for _, c := range []struct {
		message []byte
		want    string
	}{
		{pskClient1.message(byPSK("client1"), one(requests(pskRequest)), hello), "client1"},
		{sessionRaw.message(byToken(object{"renewalwindow": 1}), one(requests(pskRequest)), hello), "client1"},
		{pskClient1.message(byPSK("client1"), one(), hello), ""},
	} {
		e := r.serve(c.message)
		raw, err := readAnswer(e.wire, r.public(), &sessionRaw, func(h answerHeader) (*rawKeys, error) {
			if h.KeyResponseData == nil {
				return nil, nil
			}
			return newKeys(t, h)
		})
		if err != nil || raw.err != nil {
			t.Fatalf("%v, %+v", err, raw.err)
		}
		if raw.header.Recipient != c.want {
			t.Errorf("recipient %q, want %q", raw.header.Recipient, c.want)
		}
	}
}

// TestPeerUnknownKeyShare is the same between peers.
func TestPeerUnknownKeyShare(t *testing.T) {
	one, two := newSides(t, "RSA", "RSA")
	i := newImpostor(t, two.network)
	a, middleA := pipe(t)
	middleB, b := pipe(t)
	go func() {
		var first json.RawMessage
		in := json.NewDecoder(middleA)
		if in.Decode(&first) == nil {
			middleB.Write(i.steal(t, first))
		}
		go io.Copy(middleA, middleB)
		io.Copy(middleB, in.Buffered())
		io.Copy(middleB, middleA)
	}()
	done := serveAll(msl.NewConn(b, two.server, two.client), echo, 1)
	_, err := msl.NewConn(a, one.server, one.client).Request(context.Background(), secret2("x"))
	if !errors.Is(err, msl.ErrMessageRecipientMismatch) {
		t.Errorf("got %v", err)
	}
	for _, c := range []net.Conn{a, middleA, middleB, b} {
		c.Close()
	}
	<-done
}
