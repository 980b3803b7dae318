package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestAnswerSentBack sends an answer back to the server that gave it. It is protected by the keys
// of the session, as a request would be.
func TestAnswerSentBack(t *testing.T) {
	r := newRecorded(t)
	answer := r.serve(fromToken(object{"useridtoken": userToken(nil)}))
	if answer.served != nil || !answer.called {
		t.Fatalf("%+v", answer)
	}
	if e := r.mustRefuse(t, answer.wire, msl.ErrUnexpectedLocalMessageSender, 2); e.called {
		t.Errorf("the application got %q as from %q", e.body, e.message.User)
	}
	for sender, called := range map[any]bool{"client1": true, "x": true, "": true, 1: true, "server1": false} {
		if e := r.serve(fromToken(object{"sender": sender})); e.called != called {
			t.Errorf("sender %v: called %v", sender, e.called)
		}
	}
	r.server.Name = "client1" // of the token's holder, too
	if e := r.serve(fromToken(object{"sender": "client1"})); !e.called {
		t.Errorf("a holder with the name of the server: %v", e.served)
	}
}

// TestRequestSentBack sends a client's request back to it where it waits for messages that answer
// none.
func TestRequestSentBack(t *testing.T) {
	n := softNetwork(t)
	client := n.pskClient("device")
	var request []byte
	n.intercept = func(message []byte) []byte {
		request = bytes.Clone(message)
		return message
	}
	for range 2 { // the first brings a master token
		if _, _, err := send(t, client, &msl.Request{Encrypted: true, RequestTokens: true, Body: msl.BytesBody([]byte("mine"))}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := client.NewInbox(bytes.NewReader(request)).Receive(t.Context())
	if err == nil {
		data, _ := io.ReadAll(got.Body)
		t.Errorf("the client got its own %q", data)
	} else if !errors.Is(err, msl.ErrUnexpectedLocalMessageSender) {
		t.Error(err)
	}
}

// TestPeerSentBack joins two connections of one side, whose directory has the side itself, as
// somebody between it and its peers could do: it must not take itself for a peer.
func TestPeerSentBack(t *testing.T) {
	for _, scheme := range []string{"PSK", "RSA"} {
		for name, req := range map[string]*msl.Request{
			"keys":    {Encrypted: true, RequestTokens: true, Body: msl.BytesBody([]byte("mine"))},
			"no keys": {Body: msl.BytesBody([]byte("mine"))},
		} {
			t.Run(scheme+" "+name, func(t *testing.T) {
				one, called := &side{network: softNetwork(t), identity: "one", store: newStore(t)}, false
				one.enrol(one, scheme)
				other := &side{network: one.network, client: one.network.client(one.client.Local, one.client.KeyExchanges...)}
				asks, answers := connect(t, one, other)
				done := serveAll(answers, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
					called = true
					return echo(ctx, w, m)
				}, 1)
				if r, err := asks.Request(t.Context(), req); err == nil {
					t.Errorf("an answer of %q: %q", r.Identity, readAll(t, r.Body))
				} else if !errors.Is(err, msl.ErrUnexpectedLocalMessageSender) {
					t.Error(err)
				}
				if err := <-done; called {
					t.Errorf("the application got its own message, %v", err)
				}
			})
		}
	}
}
