package config

import (
	"slices"
	"strings"
	"testing"
)

// TestKeep changes settings of every kind.
func TestKeep(t *testing.T) {
	old, next := Default(), Default()
	old.Server.State.File, next.Server.State.File = "old.db", "new.db"
	next.Server.Limits.Header = 7
	next.Server.Require.NonReplayable = true
	next.Server.Limits.Connections = 3
	next.Server.UserRules = UserRules{{Entity: "kiosk-"}}
	next.Client.URL = "http://elsewhere"
	changed, restart := old.Keep(next)
	slices.Sort(changed)
	slices.Sort(restart)
	if want := []string{"server.limits.header", "server.require.non-replayable", "server.user-rules"}; !slices.Equal(changed, want) {
		t.Errorf("changed %q, want %q", changed, want)
	}
	if want := []string{"server.limits.connections", "server.state.file"}; !slices.Equal(restart, want) {
		t.Errorf("restart %q, want %q", restart, want)
	}
	if next.Server.State.File != "old.db" || next.Server.Limits.Connections != 0 || next.Server.Limits.Header != 7 {
		t.Errorf("next has %q and %+v", next.Server.State.File, next.Server.Limits)
	}
	if changed, restart := old.Keep(old); len(changed)+len(restart) > 0 {
		t.Errorf("the same differs: %q, %q", changed, restart)
	}
}

// TestKeepAgent is TestKeep for an agent.
func TestKeepAgent(t *testing.T) {
	old, next := Default(), Default()
	next.Client.TLS.Roots, next.Client.Agent.Users, next.Keystore.PIN = "new.pem", map[string]string{"ada": "file:ada"}, "file:pin"
	next.Client.URL, next.Client.Agent.Listen, next.Client.State = "http://elsewhere", "127.0.0.1:1", "new.db"
	next.Server.Identity = "other"
	changed, restart := old.KeepAgent(next)
	slices.Sort(changed)
	slices.Sort(restart)
	if want := []string{"client.agent.users", "client.tls.roots", "keystore.pin"}; !slices.Equal(changed, want) {
		t.Errorf("changed %q, want %q", changed, want)
	}
	if want := []string{"client.agent.listen", "client.state", "client.url"}; !slices.Equal(restart, want) || next.Client.URL != old.Client.URL {
		t.Errorf("restart %q, want %q; URL %q", restart, want, next.Client.URL)
	}
}

func TestKeepTLS(t *testing.T) {
	old, next := Default(), Default()
	next.Server.TLS.Certificates = []Certificate{{Certificate: "a.crt", Key: "a"}}
	changed, restart := old.Keep(next)
	if len(changed) != 0 || !slices.Equal(restart, []string{"server.tls"}) || next.Server.TLS.Certificates != nil {
		t.Errorf("%q, %q: TLS cannot begin on a listener that is open", changed, restart)
	}
}

// TestFixedExist wants each fixed name to be that of a setting.
func TestFixedExist(t *testing.T) {
	for _, name := range append(fixed(), loose()...) {
		if !slices.ContainsFunc(settings(new(Config)), func(s setting) bool { return s.name == name || strings.HasPrefix(s.name, name+".") }) {
			t.Errorf("there is no setting %s", name)
		}
	}
}
