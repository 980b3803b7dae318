package msl_test

import (
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// successor returns a server like the network's, on other issuer keys or limits if change makes
// them.
func (n *network) successor(change func(*msl.Server)) *msl.Server {
	old := n.server
	issuer := *old.Issuer
	s := &msl.Server{
		Name: old.Name, Local: old.Local, Peers: old.Peers, Users: old.Users, KeyExchanges: old.KeyExchanges, Custody: old.Custody,
		Issuer: &issuer, State: old.State, Directory: old.Directory, ServiceTokens: old.ServiceTokens, Capabilities: old.Capabilities,
		Limits: old.Limits,
	}
	change(s)
	return s
}

// TestContinueSessions replaces a server between two messages of a session, which is remembered if
// the successor opens the same tokens. The former server is closed first, or last.
func TestContinueSessions(t *testing.T) {
	find := func(n *network) *msl.Versions {
		return must(msl.FindVersions(n.store, "msl-issuer-encryption", "msl-issuer-mac"))
	}
	for name, c := range map[string]struct {
		change func(*network, *msl.Server)
		opened uint64
	}{
		"the same":            {func(*network, *msl.Server) {}, 0},
		"another limit":       {func(_ *network, s *msl.Server) { s.Limits.Sessions = 7 }, 1},
		"other versions":      {func(n *network, s *msl.Server) { s.Issuer.Versions = find(n) }, 1},
		"no versions":         {func(_ *network, s *msl.Server) { s.Issuer.Keys, s.Issuer.Versions = s.Issuer.Ring(), nil }, 1},
		"tokens of others":    {func(_ *network, s *msl.Server) { s.Issuer.Shared = true }, 1},
		"the same, forgotten": {func(n *network, s *msl.Server) { s.Continue(n.server); s.Forget() }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			store := soft.New()
			n := newNetwork(t, store)
			newVersions(t, store)
			n.server.Issuer.Versions = find(n)
			client := n.pskClient("device")
			sendAndRead(t, client)
			sendAndRead(t, client)
			for range 3 {
				former := n.server
				before := former.Stats().Misses
				next := n.successor(func(s *msl.Server) { c.change(n, s) })
				next.Continue(former)
				n.server = next
				if err := former.Close(); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					sendAndRead(t, client)
				}
				if got := next.Stats().Misses - before; got != c.opened {
					t.Errorf("the session was opened %d times, want %d", got, c.opened)
				}
				if c.opened > 0 {
					break // the change is only one the first time
				}
			}
			n.server.Close()
			if got := n.server.Stats().Sessions; got != 0 {
				t.Errorf("a closed server remembers %d sessions", got)
			}
		})
	}
}
