package config

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/stretch"
	"github.com/msl-hsm/msl-hsm/msl"
)

// checkNumbers refuses negative numbers where they have no meaning.
func (c *Config) checkNumbers() error {
	s, l := &c.Server, &c.Server.Limits
	for _, number := range []struct {
		name  string
		value int64
	}{
		{"keystore.wait", int64(c.Keystore.Wait)},
		{"keystore.call-timeout", int64(c.Keystore.CallTimeout)}, {"client.agent.shutdown", int64(c.Client.Agent.Shutdown)},
		{"client.agent.requests", int64(c.Client.Agent.Requests)}, {"client.agent.idle", int64(c.Client.Agent.Idle)}, {"client.agent.ahead", c.Client.Agent.Ahead},
		{"server.renew-after", int64(s.RenewAfter)}, {"server.lifetime", int64(s.Lifetime)},
		{"server.renew-expired", int64(s.RenewExpired)}, {"server.user-renew-after", int64(s.UserRenewAfter)},
		{"server.user-lifetime", int64(s.UserLifetime)}, {"server.user-renew-expired", int64(s.UserRenewExpired)},
		{"server.shutdown", int64(s.Shutdown)}, {"server.drain", int64(s.Drain)}, {"server.upstream-timeout", int64(s.UpstreamTimeout)},
		{"server.upstream.timeout", int64(s.Upstream.Timeout)}, {"server.upstream.connect-timeout", int64(s.Upstream.ConnectTimeout)},
		{"server.upstream.spare", int64(s.Upstream.Spare)}, {"server.upstream.buffer", int64(s.Upstream.Buffer)},
		{"server.upstream.check.interval", int64(s.Upstream.Check.Interval)}, {"server.upstream.check.timeout", int64(s.Upstream.Check.Timeout)},
		{"server.limits.header", int64(l.Header)}, {"server.limits.chunk", int64(l.Chunk)},
		{"server.limits.idle", int64(l.Idle)}, {"server.limits.held", int64(l.Held)}, {"server.limits.inflate", int64(l.Inflate)}, {"server.limits.sessions", int64(l.Sessions)},
		{"server.limits.errors-per-second", int64(l.ErrorsPerSecond)}, {"server.limits.errors-per-source", int64(l.ErrorsPerSource)},
		{"client.limits.answer", c.Client.Limits.Answer}, {"client.limits.header", int64(c.Client.Limits.Header)},
		{"server.limits.tokens", int64(l.Tokens)}, {"server.limits.depth", int64(l.Depth)},
		{"client.limits.tokens", int64(c.Client.Limits.Tokens)}, {"client.limits.depth", int64(c.Client.Limits.Depth)},
		{"client.limits.chunk", int64(c.Client.Limits.Chunk)}, {"client.limits.inflate", int64(c.Client.Limits.Inflate)},
		{"server.limits.passwords", int64(l.Passwords)}, {"server.limits.unproven", l.Unproven}, {"server.limits.proven", l.Proven}, {"server.enrollment.validity", int64(s.Enrollment.Validity)},
		{"server.enrollment.waiting", int64(s.Enrollment.Waiting)},
		{"server.failures.size", s.Failures.Size}, {"server.failures.age", int64(s.Failures.Age)}, {"server.failures.keep", int64(s.Failures.Keep)},
		{"server.failures.per-source", int64(s.Failures.PerSource)}, {"server.failures.per-second", int64(s.Failures.PerSecond)},
	} {
		if number.value < 0 {
			return exit.Usagef("%s is negative", number.name)
		}
	}
	return nil
}

// check refuses values that would break every message.
func check(c *Config) error {
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
	for _, section := range []func() error{c.Keystore.checkTokens, c.checkSessionKeys, s.checkPlaces, s.TLS.check, s.Failures.check, s.Upstream.check, s.checkX509, c.Client.check, s.Audit.check, s.Admin.check, s.HTTP.check, s.checkUpstream, s.Enrollment.check, c.Client.Attest.check} {
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
	return errors.Join(c.Client.CheckLanguages(), checkLanguages("server.languages", s.Languages))
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

// longestLife is the maximum lifetime of tokens: the sum of two such times does not overflow.
const longestLife = 100 * 365 * 24 * time.Hour

// checkLifetimes refuses tokens that would expire before they may be renewed, or live longer
// than longestLife.
func (s *Server) checkLifetimes() error {
	for _, life := range []struct {
		name string
		time time.Duration
	}{
		{"server.renew-after", s.RenewAfter}, {"server.lifetime", s.Lifetime}, {"server.renew-expired", s.RenewExpired},
		{"server.user-renew-after", s.UserRenewAfter}, {"server.user-lifetime", s.UserLifetime},
		{"server.user-renew-expired", s.UserRenewExpired}, {"server.enrollment.validity", s.Enrollment.Validity},
	} {
		if life.time > longestLife {
			return exit.Usagef("%s is %v: want at most %.0fh, which are 100 years", life.name, life.time, longestLife.Hours())
		}
	}
	if renew, life := Nonzero(s.RenewAfter, time.Hour), Nonzero(s.Lifetime, 24*time.Hour); renew > life {
		return exit.Usagef("server.renew-after is %v, and server.lifetime %v: a master token would expire before it may be renewed", renew, life)
	}
	if renew, life := Nonzero(s.UserRenewAfter, time.Hour), Nonzero(s.UserLifetime, 30*24*time.Hour); renew > life {
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
