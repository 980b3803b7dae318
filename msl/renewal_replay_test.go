package msl_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestRenewalSentAgain has somebody without keys send the server copies of a request for a
// renewal. The device keeps its session and its user through the following renewals, and the
// copies are of no use any more once it has renewed its token again.
func TestRenewalSentAgain(t *testing.T) {
	n := softNetwork(t)
	client := n.pskClient("device")
	req := &msl.Request{Encrypted: true, RequestTokens: true, User: "user@example.com", Body: msl.BytesBody([]byte("hello"))}
	mustSend(t, client, req, 2)
	var renewal []byte
	n.intercept = func(message []byte) []byte {
		renewal = bytes.Clone(message)
		return message
	}
	n.now = n.now.Add(2 * time.Hour)
	mustSend(t, client, req, 2)
	first := client.Held().MasterToken
	if first.SequenceNumber != 1 {
		t.Fatalf("sequence number %d", first.SequenceNumber)
	}
	copies := func(want bool) {
		for range 3 {
			served := false
			var answer bytes.Buffer
			err := n.server.Serve(t.Context(), "somebody", bytes.NewReader(renewal), &answer, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				served = true
				return nil
			})
			if served != want {
				t.Errorf("a copy was served: %v, %v", served, err)
			}
		}
	}
	copies(true)
	n.intercept = nil
	for range 2 {
		n.now = n.now.Add(2 * time.Hour)
		mustSend(t, client, req, 2)
		if held := client.Held(); held.MasterToken.SerialNumber != first.SerialNumber || len(held.UserIDTokens) != 1 {
			t.Errorf("a new session, %d users", len(held.UserIDTokens))
		}
		copies(false)
	}
}
