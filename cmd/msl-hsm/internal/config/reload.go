package config

import (
	"reflect"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
)

// fixed returns the settings, including everything below them, that a running server keeps:
// those of what is open, and of how long it remembers.
func fixed() []string {
	return []string{
		"keystore.uri", "keystore.tokens", "keystore.softhsm", "keystore.initialize", "keystore.argon2", "keystore.owner-password", "keystore.endorsement-password", "keystore.lockout-password", "keystore.ek-service", "keystore.isolate", "keystore.isolate-memory", "keystore.isolate-sandbox", "keystore.sessions", "keystore.wait", "keystore.call-timeout", "keystore.prefix", "keystore.random", "keystore.session-keys", "keystore.trusted-wrapping", "keystore.allow-weak",
		"server.listen", "server.identity", "server.state", "server.argon2", "server.trusted-proxies", "server.proxy-protocol", "server.enrollment", "server.custody",
		"server.renew-after", "server.lifetime", "server.renew-expired", "server.user-renew-after", "server.user-lifetime", "server.user-renew-expired",
		"server.limits.connections", "server.limits.connections-per-source", "server.limits.passwords", "server.limits.timeout", "server.limits.idle",
		"server.tls.http2", "server.stream", "server.peer", "server.push", "server.failures", "server.admin", "server.access-log", "server.audit", "server.watch", "server.shutdown", "server.drain",
	}
}

// Keep compares the configuration of a running server with the next one. It returns the names of the settings that change, and of those that only change
// with a restart: next keeps their values. Settings of clients are left out.
func (c *Config) Keep(next *Config) (changed, restart []string) {
	changed, restart = []string{}, []string{} // and not null in JSON
	compare(c, next, func(name string, old, next reflect.Value) {
		switch {
		case strings.HasPrefix(name, "client."):
		case slices.ContainsFunc(fixed(), func(f string) bool { return name == f || strings.HasPrefix(name, f+".") }):
			restart = append(restart, name)
			next.Set(old)
		default:
			changed = append(changed, name)
		}
	})
	if (len(c.Server.TLS.Certificates) == 0) != (len(next.Server.TLS.Certificates) == 0) {
		next.Server.TLS = c.Server.TLS
		changed = slices.DeleteFunc(changed, func(name string) bool { return strings.HasPrefix(name, "server.tls.") })
		restart = append(restart, "server.tls")
	}
	return changed, restart
}

// loose returns the settings, including everything below them, that a running agent takes from
// a configuration that was read again.
func loose() []string {
	return []string{"keystore.pin", "client.tls", "client.agent.users", "client.agent.body", "client.agent.http", "client.agent.ahead", "client.agent.requests", "client.agent.timeout", "client.agent.idle"}
}

// KeepAgent is [Config.Keep] for a running agent. Settings of servers are left out.
func (c *Config) KeepAgent(next *Config) (changed, restart []string) {
	changed, restart = []string{}, []string{}
	compare(c, next, func(name string, old, next reflect.Value) {
		switch {
		case strings.HasPrefix(name, "server."):
		case slices.ContainsFunc(loose(), func(f string) bool { return name == f || strings.HasPrefix(name, f+".") }):
			changed = append(changed, name)
		default:
			restart = append(restart, name)
			next.Set(old)
		}
	})
	return changed, restart
}

// compare calls differs for each setting that differs.
func compare(c, next *Config, differs func(name string, old, next reflect.Value)) {
	others := settings(next)
	for i, s := range settings(c) {
		if other := others[i].value; !reflect.DeepEqual(s.value.Interface(), other.Interface()) {
			differs(s.name, s.value, other)
		}
	}
}

// CheckServer refuses a configuration with which no server starts. A running server must not
// accept one: a file that is empty for a moment, while it is being written, would lift all rules.
func (c *Config) CheckServer() error {
	if c.Keystore.None() || c.Server.State.IsZero() {
		return exit.Usagef("the configuration names no key store or no state, and a server needs both: complete the file, then reload it")
	}
	return nil
}

// CheckAgent is [Config.CheckServer] for agents.
func (c *Config) CheckAgent() error {
	if c.Client.URL == "" {
		return exit.Usagef("the configuration names no client.url, which an agent needs: complete the file, then reload it")
	}
	return nil
}

// ReadPlain reads a configuration again, if a running process can read it and its files
// without blocking or running out of memory, and check permits it.
func ReadPlain(path string, read func() (*Config, error), check func(*Config) error, files func(*Config) []string) (*Config, error) {
	if err := plainfile.Check(path); err != nil {
		return nil, exit.Usagef("configuration: %w", err)
	}
	c, err := read()
	if err != nil {
		return nil, err
	}
	if err := check(c); err != nil {
		return nil, err
	}
	return c, plainfile.Check(files(c)...)
}
