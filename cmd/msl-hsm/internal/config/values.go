package config

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/secret"
)

// A choice is a setting with a fixed set of names as values.
type choice struct {
	setting, value string
	known          []string // with "" where that is the default
}

// choices returns the settings with a fixed set of names that decoding does not check.
func (c *Config) choices() []choice {
	s, client := &c.Server, &c.Client
	custodies, versions := []string{"sealed", "imported", "shared"}, []string{"", "1.2", "1.3"}
	return []choice{
		{"keystore.random", c.Keystore.Random, []string{"", "os", RandomMixed}},
		{"keystore.session-keys", c.Keystore.SessionKeys, []string{"", "token", SessionsInMemory}},
		{"server.custody", s.Custody, custodies},
		{"server.tls.min-version", s.TLS.MinVersion, versions},
		{"server.upstream.tls.min-version", s.Upstream.TLS.MinVersion, versions},
		{"server.failures.allow", s.Failures.Allow, []string{"registered", "anyone"}},
		{"server.enrollment.unknown", s.Enrollment.Unknown, []string{"hold", "refuse"}},
		{"client.custody", client.Custody, append([]string{""}, custodies...)},
		{"client.tls.min-version", client.TLS.MinVersion, versions},
		{"client.entity-scheme", client.EntityScheme, append([]string{""}, EntitySchemeNames()...)},
		{"client.user-scheme", client.UserScheme, append([]string{""}, UserSchemeNames()...)},
		{"client.dh-group", client.DHGroup, append([]string{""}, GroupNames()...)},
	}
}

// checkValues refuses unknown names and invalid sources of secrets, whether or not a command
// needs them.
func (c *Config) checkValues() error {
	for _, one := range c.choices() {
		if !slices.Contains(one.known, one.value) {
			return exit.Usagef("%s is %q: want %s", one.setting, one.value, either(one.known))
		}
	}
	for setting, empty := range map[string]bool{
		"keystore.prefix": c.Keystore.Prefix == "", "server.identity": c.Server.Identity == "" && c.Server.Certificate == "",
	} {
		if empty {
			return exit.Usagef("%s is empty: write a name, or leave it out", setting)
		}
	}
	return c.checkSources()
}

// either lists names, as "a, b or c".
func either(names []string) string {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" })
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// checkSources requires valid sources of secrets and keys.
func (c *Config) checkSources() error {
	k := &c.Keystore
	sources := map[string]string{
		"keystore.pin": k.PIN, "keystore.owner-password": k.Owner, "keystore.endorsement-password": k.Endorsement, "keystore.lockout-password": k.Lockout,
		"server.state.password": c.Server.State.Password, "server.admin.token": c.Server.Admin.Token, "client.password": c.Client.Password,
	}
	for user, source := range c.Client.Agent.Users {
		sources["client.agent.users."+user] = cmp.Or(source, "none")
	}
	for _, setting := range slices.Sorted(maps.Keys(sources)) {
		if _, err := secret.Parse(sources[setting]); err != nil && sources[setting] != "" {
			return exit.Usagef("%s: not the secret itself, but its source: %w", setting, err)
		}
	}
	switch scheme, _, _ := strings.Cut(strings.ToLower(k.URI), ":"); scheme {
	case "", "pkcs11", "soft", "tpm":
		return nil
	}
	return exit.Usagef("keystore.uri names no key store: want pkcs11:token=NAME?module-path=/path/to/module.so, soft:FILE or tpm:?state=FILE")
}
