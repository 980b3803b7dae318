package msl_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestClientServiceTokens gives, replaces and deletes service tokens on the
// client's side, with each binding.
func TestClientServiceTokens(t *testing.T) {
	n := softNetwork(t)
	var got []string
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		got = nil
		for _, s := range m.ServiceTokens {
			got = append(got, fmt.Sprintf("%s=%s %v %v", s.Name, s.Data, s.MasterToken != msl.Unbound, s.UserIDToken != msl.Unbound))
		}
		slices.Sort(got)
		return echo(ctx, w, m)
	}
	c := n.pskClient("device")
	c.ServiceTokens = n.server.ServiceTokens
	free := msl.TokenChange{Name: "free", Data: []byte("1")}
	entity := msl.TokenChange{Name: "entity", Data: []byte("2"), Bind: msl.BindEntity}
	user := msl.TokenChange{Name: "user", Data: []byte("3"), Bind: msl.BindUser}
	for _, step := range []struct {
		changes []msl.TokenChange
		as      string // user
		want    string
	}{
		{[]msl.TokenChange{free}, "user@example.com", "free=1 false false"},
		{[]msl.TokenChange{entity, user}, "user@example.com", "entity=2 true false, free=1 false false, user=3 true true"},
		{nil, "user@example.com", "entity=2 true false, free=1 false false, user=3 true true"},
		{nil, "", "entity=2 true false, free=1 false false"},
		{[]msl.TokenChange{{Name: "free", Data: []byte("4")}}, "", "entity=2 true false, free=4 false false"},
		{[]msl.TokenChange{{Name: "free"}, {Name: "user", Bind: msl.BindUser}}, "user@example.com", "entity=2 true false, free= false false, user= true true"},
		{nil, "user@example.com", "entity=2 true false"},
	} {
		req := secret("hello")
		req.User, req.ServiceTokens = step.as, step.changes
		mustSend(t, c, req, 2)
		if all := strings.Join(got, ", "); all != step.want {
			t.Errorf("after %v the server got\n\t%s, want\n\t%s", step.changes, all, step.want)
		}
	}
}

// TestUnboundChange asks for a binding to tokens that are not there yet.
func TestUnboundChange(t *testing.T) {
	for bind, want := range map[msl.Binding]msl.Code{msl.BindEntity: msl.ErrResponseRequiresMasterToken, msl.BindUser: msl.ErrResponseRequiresMasterToken} {
		n := softNetwork(t)
		c := n.pskClient("device")
		c.ServiceTokens = n.server.ServiceTokens
		req := secret("hello")
		req.ServiceTokens = []msl.TokenChange{{Name: "early", Data: []byte("x"), Bind: bind}}
		if _, _, err := send(t, c, req); !errors.Is(err, want) {
			t.Errorf("binding %v: %v, want %v", bind, err, want)
		}
		req.ServiceTokens = nil
		mustSend(t, c, req, 2) // nothing is stuck
	}
}
