package config

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/stretch"
	"github.com/msl-hsm/msl-hsm/msl"
)

// check refuses values that would break every message, or another file.
func check(c *Config, own string) error {
	s := &c.Server
	if err := c.checkNumbers(); err != nil {
		return err
	}
	if err := CheckListen("server.listen", s.Listen); err != nil {
		return err
	}
	if err := c.checkValues(); err != nil {
		return err
	}
	if err := c.checkCosts(); err != nil {
		return err
	}
	if err := s.checkLifetimes(); err != nil {
		return err
	}
	if s.ProxyProtocol && len(s.TrustedProxies) == 0 {
		return exit.Usagef("server.proxy-protocol is on, but server.trusted-proxies is empty: name the networks of the proxies that speak it")
	}
	if s.Admin.Socket != "" && s.State.File != "" {
		return exit.Usagef("server.admin.socket is for a state in etcd: leave it out, since beside the state file there is %s.sock", filepath.Base(s.State.Path()))
	}
	for _, section := range []func() error{c.Keystore.checkTokens, c.Keystore.CheckIsolate, c.checkSessionKeys, s.checkPlaces, c.checkExchanges, s.TLS.check, s.Failures.check, s.Upstream.check, s.checkIdentity, s.checkSchemes, s.checkX509, c.Client.check, s.Audit.check, s.Admin.check, s.HTTP.check, s.checkUpstream, s.Enrollment.check, c.Client.Attest.check} {
		if err := section(); err != nil {
			return err
		}
	}
	for _, list := range []struct {
		setting      string
		names, known []string
	}{
		{"server.compression", s.Compression, []string{"GZIP", "LZW"}}, {"client.compression", c.Client.Compression, []string{"GZIP", "LZW"}},
		{"client.failures.report", c.Client.Failures.Report, []string{"device", "key", "token", "data"}},
	} {
		if err := CheckNames(list.names, list.known); err != nil {
			return exit.Usagef("%s: %w", list.setting, err)
		}
	}
	return errors.Join(c.Client.CheckLanguages(), checkLanguages("server.languages", s.Languages), c.checkWritten(own))
}

// checkTokens requires several different PKCS #11 tokens, or none.
func (k *Keystore) checkTokens() error {
	if len(k.Tokens) == 1 {
		return exit.Usagef("keystore.tokens names one token: name it in keystore.uri, or another one that holds the same keys")
	}
	for i, token := range k.Tokens {
		switch scheme, _, _ := strings.Cut(k.URI, ":"); {
		case token == "":
			return exit.Usagef("keystore.tokens has an empty entry: write the label or the URI of a token")
		case slices.Contains(k.Tokens[:i], token):
			return exit.Usagef("keystore.tokens names %s twice", token)
		case scheme == "soft" || scheme == "tpm":
			return exit.Usagef("keystore.tokens is for PKCS #11, and keystore.uri is %s: leave one of them out", k.URI)
		}
	}
	return nil
}

// checkCosts refuses costs that make guessing too easy or checking too expensive.
func (c *Config) checkCosts() error {
	for _, setting := range []struct {
		name string
		cost stretch.Cost
	}{{"keystore.argon2", c.Keystore.Argon2.Cost()}, {"server.argon2", c.Server.Argon2.Cost()}} {
		if err := setting.cost.Check(); err != nil && !(c.Keystore.CheapForTests && setting.cost.Possible()) {
			return exit.Usagef("%s: %w", setting.name, err)
		}
	}
	return nil
}

// checkLifetimes refuses tokens that would expire at once, or before they may be renewed.
func (s *Server) checkLifetimes() error {
	for name, life := range map[string]time.Duration{"server.lifetime": s.Lifetime, "server.user-lifetime": s.UserLifetime} {
		if life > 0 && life < time.Second {
			return exit.Usagef("%s is %v: want 1s or more, since tokens name whole seconds", name, life)
		}
	}
	if renew, life := cmp.Or(s.RenewAfter, time.Hour), cmp.Or(s.Lifetime, 24*time.Hour); renew > life {
		return exit.Usagef("server.renew-after is %v, and server.lifetime %v: a master token would expire before it may be renewed", renew, life)
	}
	if renew, life := cmp.Or(s.UserRenewAfter, time.Hour), cmp.Or(s.UserLifetime, 30*24*time.Hour); renew > life {
		return exit.Usagef("server.user-renew-after is %v, and server.user-lifetime %v: a user ID token would expire before it may be renewed", renew, life)
	}
	return nil
}

// ParseCustody reads the custody mode of a setting.
func ParseCustody(setting, name string) (msl.Custody, error) {
	custody, err := msl.ParseCustody(name)
	if err != nil {
		return 0, exit.Usagef("%s is %q: want sealed, imported or shared", setting, name)
	}
	return custody, nil
}
