package config

import (
	"net/http"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// check refuses values that could only break every message.
func check(c *Config) error {
	s, l := &c.Server, &c.Server.Limits
	for _, number := range []struct {
		name  string
		value int64
	}{
		{"keystore.sessions", int64(c.Keystore.Sessions)}, {"keystore.wait", int64(c.Keystore.Wait)},
		{"keystore.call-timeout", int64(c.Keystore.CallTimeout)}, {"client.agent.shutdown", int64(c.Client.Agent.Shutdown)},
		{"server.renew-after", int64(s.RenewAfter)}, {"server.lifetime", int64(s.Lifetime)},
		{"server.renew-expired", int64(s.RenewExpired)},
		{"server.shutdown", int64(s.Shutdown)}, {"server.upstream-timeout", int64(s.UpstreamTimeout)},
		{"server.limits.header", int64(l.Header)}, {"server.limits.chunk", int64(l.Chunk)},
		{"server.limits.idle", int64(l.Idle)}, {"server.limits.held", int64(l.Held)}, {"server.limits.inflate", int64(l.Inflate)}, {"server.limits.sessions", int64(l.Sessions)},
		{"server.limits.errors-per-second", int64(l.ErrorsPerSecond)}, {"server.limits.errors-per-source", int64(l.ErrorsPerSource)},
		{"client.limits.answer", c.Client.Limits.Answer}, {"client.limits.header", int64(c.Client.Limits.Header)},
		{"client.limits.chunk", int64(c.Client.Limits.Chunk)}, {"client.limits.inflate", int64(c.Client.Limits.Inflate)},
		{"server.limits.passwords", int64(l.Passwords)}, {"server.limits.unproven", l.Unproven}, {"server.limits.proven", l.Proven}, {"server.enrollment.validity", int64(s.Enrollment.Validity)},
	} {
		if number.value < 0 {
			return exit.Usagef("%s is less than nothing", number.name)
		}
	}
	if renew, life := Nonzero(s.RenewAfter, time.Hour), Nonzero(s.Lifetime, 24*time.Hour); renew > life {
		return exit.Usagef("server.renew-after is %v, and server.lifetime %v: a master token would expire before it may be renewed", renew, life)
	}
	if err := s.checkStreams(); err != nil {
		return err
	}
	if s.ProxyProtocol && len(s.TrustedProxies) == 0 {
		return exit.Usagef("server.proxy-protocol is on, but server.trusted-proxies is empty: name the networks of the proxies that speak it")
	}
	if limit := l.exchange(); limit > 0 && s.UpstreamTimeout >= limit {
		return exit.Usagef("server.upstream-timeout is %v, and server.limits.timeout %v: an exchange would end before the service may answer; make server.limits.timeout the longer one", s.UpstreamTimeout, limit)
	}
	if _, err := http.NewRequest(s.UpstreamMethod, "http://upstream/", nil); err != nil {
		return exit.Usagef("server.upstream-method is %q: want the name of an HTTP method", s.UpstreamMethod)
	}
	for setting, names := range map[string][]string{"server.compression": s.Compression, "client.compression": c.Client.Compression} {
		if err := CheckNames(names, []string{"GZIP", "LZW"}); err != nil {
			return exit.Usagef("%s: %w", setting, err)
		}
	}
	return nil
}

// exchange is the time for one exchange; zero or less is no bound.
func (l Limits) exchange() time.Duration { return Nonzero(l.Timeout, time.Minute) }

// UpstreamTime is the time that the service has to begin an answer: what the
// configuration says, or half a minute, or half the time for an exchange where that is
// less.
func (s *Server) UpstreamTime() time.Duration {
	const usual = 30 * time.Second
	switch limit := s.Limits.exchange(); {
	case s.UpstreamTimeout != 0:
		return s.UpstreamTimeout
	case limit > 0:
		return min(usual, limit/2)
	}
	return usual
}

// ParseCustody reads the custody mode of a setting.
func ParseCustody(setting, name string) (msl.Custody, error) {
	custody, err := msl.ParseCustody(name)
	if err != nil {
		return 0, exit.Usagef("%s is %q: want sealed, imported or shared", setting, name)
	}
	return custody, nil
}
