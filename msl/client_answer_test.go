package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// TestAnswerInflated has a server give a token that compression shortens: the client reads
// what the server wrote.
func TestAnswerInflated(t *testing.T) {
	n := softNetwork(t)
	c := n.pskClient("device")
	c.ServiceTokens = n.server.ServiceTokens
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		w.SetServiceToken("long", []byte(compressible), msl.BindNone)
		return echo(ctx, w, m)
	}
	r := mustSend(t, c, secret("x"), 2)
	if len(r.ServiceTokens) != 1 || string(r.ServiceTokens[0].Data) != compressible {
		t.Errorf("read %d tokens", len(r.ServiceTokens))
	}
}

// TestAnswerNotKept has the state of a client fail when an answer brings tokens: that is no
// success.
func TestAnswerNotKept(t *testing.T) {
	n := softNetwork(t)
	c, state := n.pskClient("device"), &recordState{}
	c.State = state
	full := errors.New("no space left")
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		state.mu.Lock()
		defer state.mu.Unlock()
		state.sick = full
		return echo(ctx, w, m)
	}
	if _, _, err := send(t, c, secret("x")); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

// TestRefusedAnswerKeys reads answers that bring keys, as answers to another message: the keys
// are not kept.
func TestRefusedAnswerKeys(t *testing.T) {
	read := 0
	for _, c := range readConversations(t) {
		if c.label != "PSK-ASYMMETRIC_WRAPPED_RSA" && c.label != "RSA-ASYMMETRIC_WRAPPED_RSA" {
			continue
		}
		client := recordedClient(t, c.label)
		store := client.KeyExchanges[1].(*keyx.AsymmetricWrapped).Store.(*soft.Store)
		sent := c.exchanges[0].Req.HeaderData.MessageID
		live := func() int { n, _ := store.Live(); return n }
		before := live()
		_, err := client.Answer(t.Context(), &msl.Request{User: "user1"}, sent+1, io.NopCloser(bytes.NewReader(c.response(t, 0))))
		if !errors.Is(err, msl.ErrUnexpectedResponseMessageID) || live() != before || client.Held().MasterToken != nil {
			t.Errorf("%s: %v, %d more keys", c.label, err, live()-before)
		}
		read++
	}
	if read == 0 {
		t.Error("no conversation with keys was read")
	}
}
