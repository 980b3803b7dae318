package main

import (
	"context"
	"io"
	"log/slog"
	"net/url"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

type handler = msl.Handler

// application is what answers the messages: the service behind the gateway, or
// an echo.
func (c *config) application() (handler, error) {
	if c.Server.Upstream == "" {
		return echoApplication, nil
	}
	u, err := url.Parse(c.Server.Upstream)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, usagef("upstream %q: want http://HOST/PATH or https://HOST/PATH", c.Server.Upstream)
	}
	return newGateway(c.Server.Upstream, c.Server.UpstreamMethod, c.Server.UpstreamTimeout).forward, nil
}

func echoApplication(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	_, err := io.Copy(w, m.Body)
	return err
}

// guard demands the protection that the configuration asks for. A sender that
// lacks it is told to come back with a key exchange.
func (c *config) guard(next handler, log *slog.Logger) handler {
	require := c.Server.Require
	return func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		start := time.Now()
		switch {
		case require.Encrypted && !m.Encrypted:
			return msl.ErrResponseRequiresEncryption
		case require.Authenticated && !m.Authenticated:
			return msl.ErrResponseRequiresIntegrityProtection
		case require.NonReplayable && !m.NonReplayable:
			return msl.ErrIncompleteNonReplayableMessage
		}
		if err := w.Answerable(); err != nil {
			return err // and the message comes again, with a key exchange
		}
		err := next(ctx, w, m)
		log.LogAttrs(ctx, slog.LevelDebug, "message", slog.String("entity", m.Identity), slog.String("user", m.User),
			slog.Int64("message_id", m.MessageID), slog.Duration("took", time.Since(start)), slog.Any("error", err))
		return err
	}
}
