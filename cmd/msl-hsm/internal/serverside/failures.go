package serverside

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/failurelog"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A FailureEndpoint accepts reports of failures beside the messages.
type FailureEndpoint struct {
	path    string
	handler *failurelog.Handler // nil if there is none
}

// TakeFailures opens the log of crypto failure messages, if the configuration names
// one.
func TakeFailures(c *config.Config, s *Service, log *slog.Logger) (*FailureEndpoint, error) {
	f := c.Server.Failures
	if f.Log == "" {
		return &FailureEndpoint{}, nil
	}
	reports, err := failurelog.OpenLog(f.Log, failurelog.Rotation{Size: f.Size, Age: f.Age, Keep: f.Keep})
	if err != nil {
		return nil, exit.Usagef("server.failures.log: %w", err)
	}
	return &FailureEndpoint{f.Path, &failurelog.Handler{
		Log: reports, Name: c.Server.Identity, Allow: mayReport(c, s.State),
		PerSource: f.PerSource, PerSecond: f.PerSecond, Logger: log,
		Source: mslhttp.TrustedProxies(c.Server.TrustedProxies).Source,
	}}, nil
}

// mayReport admits every registered entity, whatever its scheme: an entity that reports
// a failure of its keys cannot use them.
func mayReport(c *config.Config, state msl.Directory) func(context.Context, string) (bool, error) {
	if c.Server.Failures.Allow == "anyone" {
		return nil
	}
	return func(ctx context.Context, identity string) (bool, error) {
		entity, err := state.Entity(ctx, identity)
		if errors.Is(err, keystore.ErrNotFound) {
			return inModelGroup(c, identity), nil
		}
		return err == nil && !entity.Revoked, err
	}
}

// inModelGroup reports whether the identity belongs to a group that shares a key.
func inModelGroup(c *config.Config, identity string) bool {
	for prefix := range c.Server.ModelGroups {
		if strings.HasPrefix(identity, prefix) {
			return true
		}
	}
	return false
}

// Beside serves the endpoint, and passes all other requests to next.
func (f *FailureEndpoint) Beside(next http.Handler) http.Handler {
	if f.handler == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == f.path {
			f.handler.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Close closes the log of the messages.
func (f *FailureEndpoint) Close() error {
	if f.handler == nil {
		return nil
	}
	return f.handler.Log.Close()
}
