package serverside

import (
	"context"
	"io"
	"log/slog"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// Application returns the handler of the messages' data: the gateway to a service, or
// an echo.
func Application(c *config.Config) (msl.Handler, error) {
	if c.Server.Upstream == "" {
		return echoApplication, nil
	}
	if err := c.Server.CheckUpstream(); err != nil {
		return nil, err
	}
	gateway := &mslhttp.Gateway{URL: c.Server.Upstream, Method: c.Server.UpstreamMethod, Timeout: c.Server.UpstreamTime()}
	return gateway.Handle, nil
}

func echoApplication(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	_, err := io.Copy(w, m.Body)
	return err
}

// logExchange logs each message once its answer is sent, or is known never to be sent.
func logExchange(log *slog.Logger) func(context.Context, mslhttp.Exchange) {
	return func(ctx context.Context, e mslhttp.Exchange) {
		log.LogAttrs(ctx, slog.LevelDebug, "message", slog.String("source", e.Source), slog.String("entity", e.Identity), slog.String("user", e.User),
			slog.Int64("message_id", e.MessageID), slog.Duration("took", e.Took), slog.Any("error", e.Err))
	}
}
