package serverside

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// HTTPServer limits what a connection may cost before a message is read; mslhttp limits
// the rest.
func HTTPServer(c *config.Config, s *Service, handle msl.Handler, log, peers *slog.Logger) (*http.Server, error) {
	source := mslhttp.TrustedProxies(c.Server.TrustedProxies).Source
	answers := &mslhttp.Handler{
		Server: s.MSL, Handle: handle, MaxBody: c.Server.Limits.Body, Timeout: c.Server.Limits.Timeout,
		Idle: c.Server.IdleTime(), Log: peers, Report: logExchange(log), Source: source,
	}
	paths := http.NewServeMux()
	paths.Handle("/", answers)
	if s.Devices != nil {
		if err := openEndpoint(c, s, peers, source); err != nil {
			return nil, err
		}
		paths.Handle(c.Server.Enrollment.Path, s.endpoint)
	}
	return &http.Server{
		Handler: paths,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return mslhttp.TLSContext(s.Connections.Context(ctx, conn), conn)
		},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    8 << 10, // a short header line takes a hundred bytes
		ErrorLog:          slog.NewLogLogger(peers.Handler(), slog.LevelDebug),
	}, nil
}
