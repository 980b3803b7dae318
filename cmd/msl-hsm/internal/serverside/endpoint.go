package serverside

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// openEndpoint opens the endpoint at which devices enroll, beside the server.
func openEndpoint(c *config.Config, s *Service, log *slog.Logger, source func(*http.Request) string) (err error) {
	perSecond := 4 * c.Server.Enrollment.Rate // three messages, and one that is repeated
	limits := s.MSL.Limits.Effective()
	limits.ErrorsPerSecond = max(limits.ErrorsPerSecond, int(perSecond)) // as are first answers
	key, err := keys.EndpointKey(c, s.Store)
	if err != nil {
		return err
	}
	s.endpoint, err = fleet.NewEndpoint(s.Devices.Authority, fleet.EndpointConfig{
		Name: s.MSL.Name, Local: s.MSL.Local, Key: key, PerSecond: perSecond,
		Limits: limits, Timeout: c.Server.Limits.Timeout, Source: source, Log: log,
		EventLogs: len(c.Server.Enrollment.EventLog) > 0,
		Decided: func(ctx context.Context, d enroll.Decision, err error) {
			fleet.LogDecision(ctx, log, d, AfterConflict(err))
		},
	})
	return err
}

// AfterConflict adds the next step to the error of a device whose name is taken.
func AfterConflict(err error) error {
	var conflict *fleet.ConflictError
	switch {
	case !errors.As(err, &conflict):
		return err
	case errors.Is(err, fleet.ErrRevoked):
		return fmt.Errorf("%w: run msl-hsm entity unrevoke %s if it may enroll", err, exit.Printable(conflict.Identity))
	}
	return fmt.Errorf("%w: give the device another name, or run msl-hsm entity remove %s", err, exit.Printable(conflict.Identity))
}
