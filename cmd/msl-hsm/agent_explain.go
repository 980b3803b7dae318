package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/agent"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// explain is what a program is told of an error.
func (a *agentProcess) explain(err error) error {
	told := explain(settingOf(err), a.config)
	switch {
	case a.client.machine != nil && errors.Is(err, keystore.ErrForeign):
		return fmt.Errorf("%w; %s, and start the agent again", told, makeIdentity)
	case isAny(err, identity.ErrOtherTPM, identity.ErrCleared, identity.ErrNotInitialized, identity.ErrNotEnrolled):
		return &agent.StatusError{Status: http.StatusInternalServerError, Err: told}
	}
	return told
}

// settingOf names the setting that refused a request.
func settingOf(err error) error {
	var body *agent.BodyError
	var user *agent.UserError
	switch {
	case errors.As(err, &body):
		return fmt.Errorf("%w, which client.agent.body permits", err)
	case errors.As(err, &user):
		return fmt.Errorf("%w: add them to client.agent.users", err)
	}
	return err
}

// report logs what became of a request, and tells the server of a crypto failure.
func (a *agentProcess) report(_ context.Context, e agent.Exchange) {
	if e.Err == nil {
		a.log.Debug("message", "took", e.Took)
		return
	}
	a.reporter.Observe(e.Err)
	if e.Status == 0 {
		a.log.Debug("request was given up", "took", e.Took)
		return
	}
	a.log.Warn("no complete answer", "status", e.Status, "begun", e.Begun, "took", e.Took, slog.Any("error", settingOf(e.Err)))
}
