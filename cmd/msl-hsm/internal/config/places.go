package config

import (
	"cmp"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// A place is the value of a setting that no other setting may have: an address, the path of a
// URL, or a file.
type place struct{ setting, at string }

// distinct refuses places that two settings name. Empty ones do not count.
func distinct(places []place) error {
	seen := map[string]string{}
	for _, p := range places {
		if other := seen[p.at]; other != "" && p.at != "" {
			return exit.Usagef("%s is %q, and so is %s: give it another one", other, p.at, p.setting)
		}
		seen[p.at] = p.setting
	}
	return nil
}

// checkStreams requires distinct paths and valid, distinct addresses.
func (s *Server) checkStreams() error {
	paths := []place{{"server.admin.health", s.Admin.Health}}
	if s.Enrollment.On() {
		paths = append(paths, place{"server.enrollment.path", s.Enrollment.Path})
	}
	if s.Failures.Log != "" {
		paths = append(paths, place{"server.failures.path", s.Failures.Path})
	}
	addresses := []place{{"server.listen", s.Listen}}
	for _, p := range []struct{ name, path, listen string }{
		{"server.stream", s.Stream.Path, s.Stream.Listen},
		{"server.peer", s.Peer.Path, s.Peer.Listen},
		{"server.push", s.Push.Path, s.Push.Listen},
	} {
		if p.path != "none" && p.path != "" {
			if !isPath(p.path) {
				return exit.Usagef("%s.path is %q: want a path such as /peer", p.name, p.path)
			}
			paths = append(paths, place{p.name + ".path", p.path})
		}
		if p.listen != "" {
			if err := CheckListen(p.name+".listen", p.listen); err != nil {
				return err
			}
			addresses = append(addresses, place{p.name + ".listen", p.listen})
		}
	}
	addresses = append(addresses, place{"server.admin.listen", s.Admin.Listen}, place{"server.push.from", s.Push.From})
	addresses = slices.DeleteFunc(addresses, func(p place) bool { _, port, _ := net.SplitHostPort(p.at); return port == "0" })
	return cmp.Or(distinct(paths), distinct(addresses))
}

// checkWritten requires the files that a server or a client writes to be distinct, and not
// to be read as something else: a log would be appended to the state.
func (c *Config) checkWritten(own string) error {
	s := &c.Server
	written := []place{
		{"server.state.file", s.State.Path()}, {"server.enrollment.state", s.Enrollment.File()},
		{"server.failures.log", s.Failures.Log}, {"server.audit.file", s.Audit.File},
		{"client.state", c.Client.State}, {"client.failures.spool", c.Client.Failures.Spool},
	}
	if s.AccessLog != AccessNone && s.AccessLog != AccessInLog {
		written = append(written, place{"server.access-log", s.AccessLog})
	}
	for i, p := range written {
		written[i].at = path.Clean(p.at)
		if p.at == "" || strings.HasPrefix(p.at, "/dev/") {
			written[i].at = ""
		}
	}
	read := slices.Concat(c.Files(), c.AgentFiles(), c.StartFiles(), []string{own, s.X509CRL, s.TLS.ClientCRL, c.Client.PSK, c.Client.Certificate, c.Client.ServerKey})
	for _, p := range written {
		if p.at != "" && slices.Contains(read, p.at) {
			return exit.Usagef("%s is %q, which another setting reads: name another file", p.setting, p.at)
		}
	}
	return distinct(written)
}
