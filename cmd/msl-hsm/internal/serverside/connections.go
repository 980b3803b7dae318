package serverside

import (
	"net"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// connections bounds how many there are.
func connections(s *config.Server) *mslhttp.Connections {
	return &mslhttp.Connections{
		Max: s.Limits.Connections, PerSource: s.Limits.ConnectionsPerSource, Trusted: mslhttp.TrustedProxies(s.TrustedProxies),
	}
}

// BehindProxies takes the word of trusted proxies for where a connection comes from.
func BehindProxies(s *config.Server, l net.Listener) net.Listener {
	if !s.ProxyProtocol {
		return l
	}
	return mslhttp.TrustedProxies(s.TrustedProxies).Listen(l)
}
