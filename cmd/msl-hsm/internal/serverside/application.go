package serverside

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// Application returns the handler of the messages' data: the gateway to a service, or
// an echo.
func Application(c *config.Config, s *Service, log *slog.Logger) (msl.Handler, error) {
	if c.Server.HTTP.On() {
		if err := c.Server.CheckHTTP(); err != nil {
			return nil, err
		}
	}
	if c.Server.Upstream.IsZero() {
		return mslhttp.RefuseHTTP(httpIsOff, echoApplication), nil
	}
	u, err := Upstream(c, s.Store, log)
	if err != nil {
		return nil, err
	}
	s.upstream, u.Report = u, s.reportUpstream
	if err := u.Verify(); err != nil {
		return nil, exit.Usagef("server.upstream: %w", err)
	}
	gateway := &mslhttp.Gateway{Upstream: u, Method: c.Server.UpstreamVerb(), ContentType: c.Server.Upstream.ContentType}
	if !c.Server.HTTP.On() {
		return mslhttp.RefuseHTTP(httpIsOff, gateway.Handle), nil
	}
	whole := &mslhttp.HTTPGateway{Upstream: u, Rules: c.Server.HTTP.Rules(), Plain: gateway.Handle}
	return whole.Handle, nil
}

// httpIsOff is sent to a device that sends an HTTP request anyway.
const httpIsOff = "it passes no HTTP requests on: set server.http in its configuration, or turn client.agent.http off in the agent's"

// Upstream returns the service behind the server.
func Upstream(c *config.Config, store keystore.Store, log *slog.Logger) (*mslhttp.Upstream, error) {
	own := &c.Server.Upstream
	u := &mslhttp.Upstream{
		Targets: own.URL, Proxy: own.Proxy.URL(),
		Connect: own.ConnectTimeout, Timeout: c.Server.UpstreamTime(),
		Buffer: own.Buffer, Whole: own.Body == "whole",
		Rest: own.Spare, Check: mslhttp.HealthCheck(own.Check),
		Trusted: mslhttp.TrustedProxies(c.Server.TrustedProxies), Log: log,
	}
	if own.Body == "stream" {
		u.Buffer = -1
	}
	var err error
	if u.TLS, err = keys.TLSClient("server.upstream.tls", &own.TLS, store); err != nil {
		return nil, err
	}
	u.Header, err = fixedHeaders(own.Headers)
	return u, err
}

func fixedHeaders(sources map[string]string) (http.Header, error) {
	h := http.Header{}
	for name, source := range sources {
		value, err := keys.Secret(source, "value of the header "+name)
		if err != nil {
			return nil, err
		}
		h.Set(name, string(value.Bytes()))
		value.Close()
	}
	return h, nil
}

// echoApplication returns data as it arrives.
func echoApplication(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	body, knows := m.Body.(interface{ Ended() bool })
	data := make([]byte, 64<<10)
	for {
		n, err := m.Body.Read(data)
		if _, failed := w.Write(data[:n]); failed != nil {
			return failed
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case knows && !body.Ended(): // the peer may wait for this before it sends more
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
}
