package serverside

import (
	"log/slog"
	"net"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// connections limits the number of connections.
func connections(s *config.Server, log *slog.Logger) *mslhttp.Connections {
	return &mslhttp.Connections{
		Max: s.Limits.Connections, PerSource: s.Limits.ConnectionsPerSource, Trusted: mslhttp.TrustedProxies(s.TrustedProxies), Log: log,
	}
}

// BehindProxies uses the source addresses that trusted proxies report.
func BehindProxies(s *config.Server, l net.Listener) net.Listener {
	if !s.ProxyProtocol {
		return l
	}
	return mslhttp.TrustedProxies(s.TrustedProxies).Listen(l)
}
