package config

import (
	"cmp"
	"crypto/fips140"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// IdleTime returns how long a stream may pause. With HTTP the default is the time for an
// exchange, because programs expect streams to last.
func (s *Server) IdleTime() time.Duration {
	if s.HTTP.On() {
		return cmp.Or(s.Limits.Idle, max(s.Limits.exchange(), 0))
	}
	return s.Limits.Idle
}

// UpstreamTime returns the time that the service has to begin an answer: as configured, or
// the lesser of half a minute and half the time for an exchange.
func (s *Server) UpstreamTime() time.Duration {
	const usual = 30 * time.Second
	given, limit := cmp.Or(s.Upstream.Timeout, s.UpstreamTimeout), s.Limits.exchange()
	switch {
	case given != 0:
		return given
	case limit > 0:
		return min(usual, limit/2)
	}
	return usual
}

// UpstreamVerb returns the method of requests to the service; empty means the default.
func (s *Server) UpstreamVerb() string {
	if s.Upstream.Method != "" {
		return string(s.Upstream.Method)
	}
	return s.UpstreamMethod
}

// checkPlaces checks where the state is, and where connections and devices arrive.
func (s *Server) checkPlaces() error {
	for _, section := range []func() error{s.State.check, s.checkEnrollment, s.checkStreams, s.checkPushes} {
		if err := section(); err != nil {
			return err
		}
	}
	return nil
}

// maxEnrollments is far more per second than any server can handle.
const maxEnrollments = 100_000

// checkEnrollment requires the records of devices to be where the state is: in a file, or in
// etcd.
func (s *Server) checkEnrollment() error {
	switch {
	case s.State.Shared() && s.Enrollment.File() != "":
		return exit.Usagef("server.enrollment.state is a file, and server.state is in etcd: write state: etcd, so that every server knows the devices; msl-hsm enrollment import FILE brings a file there")
	case s.Enrollment.Shared() && !s.State.Shared():
		return exit.Usagef("server.enrollment.state is etcd, and server.state is not: name a file, such as enrollments.db (or ./etcd, for one of that name)")
	}
	if s.Enrollment.State != "" && fips140.Enforced() {
		return exit.Usagef("server.enrollment.state is set, but GODEBUG=fips140=only forbids AES-CFB, the cipher of TPM credentials: use fips140=on")
	}
	if r := s.Enrollment.Rate; !(r == 0 || r >= 0.1 && r <= maxEnrollments) {
		return exit.Usagef("server.enrollment.rate is %v: want 0.1 to %d enrollments per second", r, maxEnrollments)
	}
	return nil
}

// checkPushes requires both ends of messages that the server sends on its own.
func (s *Server) checkPushes() error {
	if s.Peer.Push && s.Push.From == "" {
		return exit.Usagef("server.peer.push is on, but messages cannot be posted: set server.push.from")
	}
	if waits := s.Push.Path != "" || s.Push.Listen != "" || s.Peer.Push; waits != (s.Push.From != "") {
		return exit.Usagef("server.push needs both: from, where messages are posted, and path or listen, where clients wait for them (or server.peer.push)")
	}
	if _, unix := CutUnix(s.Push.From); unix {
		return nil
	}
	return CheckLoopback("server.push.from", s.Push.From)
}

// checkIdentity requires one proof of the server's identity.
func (s *Server) checkIdentity() error {
	if s.PSKKeys != "" && (s.Key != "" || s.Certificate != "") {
		return exit.Usagef("server.psk-keys is set, and server.key or server.certificate too: a server proves itself in only one way")
	}
	return nil
}

// checkSchemes requires the settings of the schemes that are named.
func (s *Server) checkSchemes() error {
	for _, name := range s.EntitySchemes {
		if setting := s.Lacks(name); setting != "" {
			return exit.Usagef("server.entity-schemes names %s, which needs %s", name, setting)
		}
	}
	return nil
}

// Lacks returns the missing setting that a scheme of entities requires, if any. Without
// server.entity-schemes, X509 is one that admits nobody.
func (s *Server) Lacks(scheme string) string {
	switch {
	case scheme == "MGK" && len(s.ModelGroups) == 0:
		return "server.model-groups"
	case scheme == "X509" && s.X509Roots == "" && !s.certifies() && s.EntitySchemes != nil:
		return "server.x509-roots"
	case scheme == "PROVISIONED" && s.Provisioned == "":
		return "server.provisioned"
	}
	return ""
}

// certifies reports whether devices that enroll get certificates.
func (s *Server) certifies() bool { return s.Enrollment.On() && s.Enrollment.CA != "" }

// checkX509 refuses settings that depend on roots if there are none.
func (s *Server) checkX509() error {
	if s.X509Roots != "" {
		return nil
	}
	if s.X509CRL != "" && !s.certifies() {
		return exit.Usagef("server.x509-crl is set and server.x509-roots is not: name the roots of the authorities that revoke, or leave it out")
	}
	if s.X509Intermediates != "" {
		return exit.Usagef("server.x509-intermediates is set and server.x509-roots is not: nobody is trusted")
	}
	if s.X509RequireCRL && !s.certifies() {
		return exit.Usagef("server.x509-require-crl is set and server.x509-roots is not: there are no certificates to refuse")
	}
	return nil
}

// checkUpstream refuses settings that contradict others.
func (s *Server) checkUpstream() error {
	if s.UpstreamMethod != "" && s.Upstream.Method != "" {
		return exit.Usagef("server.upstream-method and server.upstream.method are the same setting: give only the second")
	}
	if s.UpstreamTimeout != 0 && s.Upstream.Timeout != 0 {
		return exit.Usagef("server.upstream-timeout and server.upstream.timeout are the same setting: give only the second")
	}
	if s.UpstreamMethod != "" {
		if err := checkMethod(s.UpstreamMethod); err != nil {
			return exit.Usagef("server.upstream-method is %w", err)
		}
	}
	limit := s.Limits.exchange()
	for name, timeout := range map[string]time.Duration{"server.upstream-timeout": s.UpstreamTimeout, "server.upstream.timeout": s.Upstream.Timeout} {
		if limit > 0 && timeout >= limit {
			return exit.Usagef("%s is %v, and server.limits.timeout %v: an exchange would end before the service may answer; make server.limits.timeout the longer one", name, timeout, limit)
		}
	}
	if held := s.Limits.held(); s.Upstream.Buffer > held {
		return exit.Usagef("server.upstream.buffer is %d, and server.limits.held %d: no more of a message may be kept in memory; make server.limits.held as large", s.Upstream.Buffer, held)
	}
	return nil
}

// CheckHTTP requires a service for HTTP requests whose address has no query: a program could
// repeat one of its parameters.
func (s *Server) CheckHTTP() error {
	if s.Upstream.IsZero() {
		return exit.Usagef("server.http is on, but there is no service: set server.upstream, or use --upstream")
	}
	for _, target := range s.Upstream.URL {
		if target.URL.RawQuery != "" {
			return exit.Usagef("server.upstream %q has a query, and server.http is on: leave the query out, since programs send their own", target)
		}
	}
	return nil
}
