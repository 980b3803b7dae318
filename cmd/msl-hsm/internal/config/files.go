package config

import (
	"maps"
	"slices"
	"strings"
)

// Files returns the files that a running server reads again with its configuration. Revocation
// lists and OCSP responses are not included, because they are checked whenever they are used.
func (c *Config) Files() []string {
	s := &c.Server
	all := c.Keystore.files()
	all = append(all, s.State.Certificate, s.Certificate, s.X509Roots, s.X509Intermediates, s.Messages, s.TLS.ClientCA, s.Upstream.TLS.Roots, s.Upstream.TLS.Certificate)
	for _, t := range s.TLS.Certificates {
		all = append(all, t.Certificate)
	}
	all = append(all, sources(s.State.Password)...)
	return append(all, sources(slices.Collect(maps.Values(s.Upstream.Headers))...)...)
}

// AgentFiles returns the files that a running agent reads again with its configuration.
func (c *Config) AgentFiles() []string {
	return append(sources(c.Keystore.PIN), c.Client.TLS.Roots, c.Client.TLS.Certificate)
}

// StartFiles returns the files that a server reads only when it starts.
func (c *Config) StartFiles() []string {
	s := &c.Server
	all := append(sources(s.Admin.Token), s.State.CA)
	for _, roots := range []RootList{s.Enrollment.EKRoots, s.Enrollment.Devices} {
		for _, name := range roots {
			if name != Makers {
				all = append(all, name)
			}
		}
	}
	return all
}

// files returns the files of the PIN and of keys in software.
func (k *Keystore) files() []string {
	all := sources(k.PIN)
	if path, ok := strings.CutPrefix(k.URI, "soft:"); ok {
		all = append(all, path)
	}
	return all
}

// sources returns the files among sources of secrets.
func sources(of ...string) (paths []string) {
	for _, source := range of {
		if path, ok := strings.CutPrefix(source, "file:"); ok {
			paths = append(paths, path)
		}
	}
	return paths
}
