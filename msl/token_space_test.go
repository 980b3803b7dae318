package msl_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestNoTokenTooMany has an application give a client more service tokens than a message may
// have, or longer ones, and the client add them itself. The message that would is refused,
// and those after it continue.
func TestNoTokenTooMany(t *testing.T) {
	long := random(6 << 10)
	for name, give := range map[string]func(i int) []msl.TokenChange{
		"too many": func(i int) (all []msl.TokenChange) {
			for j := range 5 {
				all = append(all, msl.TokenChange{Name: fmt.Sprint(i, j), Data: []byte("x")})
			}
			return all
		},
		"too long": func(i int) []msl.TokenChange { return []msl.TokenChange{{Name: fmt.Sprint(i), Data: long[i:]}} },
	} {
		n := softNetwork(t)
		n.server.Limits.Header, n.server.Limits.Tokens = 32<<10, 8
		client := n.pskClient("device")
		client.ServiceTokens, client.Limits = n.server.ServiceTokens, n.server.Limits
		changes := give(0)
		n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			for _, c := range changes {
				w.ChangeServiceToken(c)
			}
			return echo(ctx, w, m)
		}
		mustSend(t, client, plainly(), 2)
		held := len(client.Held().ServiceTokens)
		changes = give(1)
		if err := peerError(t, client, plainly()); err.Code != msl.ErrMSLEncodeError {
			t.Errorf("%s: %v", name, err)
		}
		n.handler = echo
		req := plainly()
		req.ServiceTokens = give(2)
		if _, _, err := send(t, client, req); err == nil {
			t.Errorf("%s: the client sent them", name)
		}
		mustSend(t, client, plainly(), 2)
		if got := len(client.Held().ServiceTokens); got != held {
			t.Errorf("%s: holds %d, held %d", name, got, held)
		}
	}
}

// TestPeerThatGivesTokens has a peer give service tokens with each message, all of which are
// kept for as long as the connection lasts.
func TestPeerThatGivesTokens(t *testing.T) {
	r := newRecorded(t)
	client := &msl.Client{Local: localSchemes(t)["PSK"], Time: r.clock, Limits: msl.Limits{Header: 32 << 10}}
	t.Cleanup(func() { client.Close() })
	var in bytes.Buffer
	const messages = 10
	for i := range messages {
		var list []any
		for j := range 8 {
			list = append(list, serviceToken(object{"name": fmt.Sprint(i, j), "servicedata": random(1 << 10)}))
		}
		in.Write(fromToken(object{"peerservicetokens": list}))
	}
	conn := msl.NewConn(struct {
		io.Reader
		io.Writer
	}{&in, io.Discard}, r.server, client)
	for range messages { // what is too much is refused
		if err := conn.Serve(t.Context(), echo); err != nil {
			t.Fatal(err)
		}
	}
	if held := len(client.Held().ServiceTokens); held != 8 {
		t.Errorf("%d tokens are held", held)
	}
}
