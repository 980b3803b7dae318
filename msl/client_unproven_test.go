package msl_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// unprovenServer is a client that takes answers of a server which proves nothing, and what
// reads one answer to the message with id 1.
func unprovenServer(t testing.TB) (*msl.Client, func(answer []byte) error) {
	n := softNetwork(t)
	client := n.pskClient("device")
	client.Peers = append(client.Peers, &entityauth.None{Directory: directory{
		"server": {Identity: "server", Scheme: "NONE"}, "other": {Identity: "other", Scheme: "NONE"}}})
	return client, func(answer []byte) error {
		_, err := client.Answer(t.Context(), &msl.Request{Recipient: "server"}, 1, io.NopCloser(bytes.NewReader(answer)))
		return err
	}
}

// TestUnprovenAnswer has a server that proves nothing tell the time: the client does not
// judge its tokens by that, and does not say who wrote an error.
func TestUnprovenAnswer(t *testing.T) {
	client, answer := unprovenServer(t)
	late := object{"timestamp": time.Unix(1700000000, 0).Add(1000 * time.Hour).Unix()}
	server := byScheme("NONE", object{"identity": "server"})
	if err := answer(rawKeys{}.message(server, one(object{"messageid": 2}, late), hello)); err != nil {
		t.Fatal(err)
	}
	refusal := rawKeys{}.signed("errordata", encode(with(object{"messageid": 2, "errorcode": 4}, late)))
	var refused *msl.PeerError
	if err := answer(encode(with(refusal, server))); !errors.As(err, &refused) || refused.Identity != "" {
		t.Errorf("%+v", refused)
	}
	if ahead := client.ClockAhead(); ahead != 0 {
		t.Errorf("the server's clock is believed to be %v ahead", ahead)
	}
	other := byScheme("NONE", object{"identity": "other"})
	if err := answer(encode(with(refusal, other))); !errors.Is(err, msl.ErrMessageSenderMismatch) {
		t.Errorf("an error of another entity than the recipient: %v", err)
	}
}

// TestAnswerThatIsAHandshake refuses an answer that asks for keys and brings no key request.
func TestAnswerThatIsAHandshake(t *testing.T) {
	_, answer := unprovenServer(t)
	for _, header := range []object{{"handshake": true}, {"handshake": true, "renewable": true}, {"handshake": true, "renewable": true, "keyrequestdata": []any{}}} {
		err := answer(rawKeys{}.message(byScheme("NONE", object{"identity": "server"}), one(object{"messageid": 2}, header)))
		if !errors.Is(err, msl.ErrHandshakeDataMissing) {
			t.Errorf("%v: %v", header, err)
		}
	}
}
