package serverside

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/url"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// Application returns the handler of the messages' data: the gateway to a service, or
// an echo.
func Application(c *config.Config) (msl.Handler, error) {
	if c.Server.Upstream == "" {
		return echoApplication, nil
	}
	u, err := url.Parse(c.Server.Upstream)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, exit.Usagef("upstream %q: want http://HOST/PATH or https://HOST/PATH", c.Server.Upstream)
	}
	gateway := &mslhttp.Gateway{URL: c.Server.Upstream, Method: c.Server.UpstreamMethod, Timeout: c.Server.UpstreamTime()}
	return gateway.Handle, nil
}

// echoApplication sends back what comes, as it comes.
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
		case knows && !body.Ended(): // the peer may wait for this before it says more
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
}

// logExchange logs each message once its answer is sent, or is known never to be sent.
func logExchange(log *slog.Logger) func(context.Context, mslhttp.Exchange) {
	return func(ctx context.Context, e mslhttp.Exchange) {
		log.LogAttrs(ctx, slog.LevelDebug, "message", slog.String("source", e.Source), slog.String("entity", e.Identity), slog.String("user", e.User),
			slog.Int64("message_id", e.MessageID), slog.Duration("took", e.Took), slog.Any("error", e.Err))
	}
}
