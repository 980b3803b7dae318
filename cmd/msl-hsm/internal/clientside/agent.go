package clientside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/logsample"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/identity"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/agent"
	"github.com/msl-hsm/msl-hsm/msl/failurelog"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// An Agent sends messages for the programs of this machine, according to one
// configuration.
type Agent struct {
	config    *config.Config
	Client    *Client
	Failures  *logsample.Handler // of requests, which an outage repeats: flush it at the end
	log       *slog.Logger
	reporter  *failurelog.Reporter
	transport *mslhttp.Transport
}

// OpenAgent opens a client for the programs of this machine, with the configured keys and
// state. The reporter itself keeps or drops what it cannot send.
func OpenAgent(c *config.Config, ctx context.Context, log *slog.Logger, reporter *failurelog.Reporter) (*Agent, error) {
	if err := c.Client.CheckURL(); err != nil {
		return nil, err
	}
	if err := c.Client.Attest.Check(c.Keystore.URI); err != nil {
		return nil, err
	}
	warnings := slog.NewLogLogger(log.Handler(), slog.LevelWarn).Writer()
	tell := &Trace{Out: warnings}
	k, err := Open(c, ctx, tell)
	if err != nil {
		return nil, err
	}
	tell.Remind()
	k.MSL.State = agent.WatchState(k.MSL.State, func(r msl.ClientRecord) {
		log.Info("new master token", "key_exchange", r.KeyExchange)
	})
	transport, err := agentTransport(c, k.store)
	if err != nil {
		k.Close()
		return nil, err
	}
	return &Agent{config: c, Client: k, Failures: logsample.New(log.Handler()), log: log, reporter: reporter, transport: transport}, nil
}

// agentTransport returns the transport to the server.
func agentTransport(c *config.Config, store keys.Importing) (*mslhttp.Transport, error) {
	web, err := WebClient(c, store)
	if err != nil {
		return nil, err
	}
	return &mslhttp.Transport{URL: c.Client.URL, Client: pooled(web, c.Client.Agent.Requests), MaxAnswer: c.Client.Limits.Answer}, nil
}

// pooled keeps as many idle connections as there may be concurrent requests.
func pooled(web *http.Client, connections int) *http.Client {
	switch t := web.Transport.(type) {
	case *http.Transport:
		t.MaxIdleConnsPerHost = connections
	case *mslhttp.HTTP2Transport:
		t.HTTP1.MaxIdleConnsPerHost = connections
	default:
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = connections
		return &http.Client{Transport: transport}
	}
	return web
}

// handler returns the agent's handler as configured: a time of 0 means no limit, and a
// body of 0 bytes means no data.
func (a *Agent) handler() http.Handler {
	own := &a.config.Client
	h := &agent.Handler{
		Client: a.Client.MSL, Recipient: own.Recipient, User: own.User, Users: slices.Collect(maps.Keys(own.Agent.Users)),
		MaxBody: own.Agent.Body, MaxAhead: own.Agent.Ahead, HTTP: own.Agent.HTTP, Idle: own.Agent.Idle, Requests: own.Agent.Requests, Timeout: own.Agent.Timeout,
		Explain: a.explain, Report: a.report,
	}
	if h.HTTP && h.Idle == 0 {
		h.Idle = max(h.Timeout, 0) // programs expect streams to last
	}
	if h.Timeout == 0 {
		h.Timeout = -1
	}
	if h.MaxBody <= 0 {
		return http.MaxBytesHandler(h, 0)
	}
	return h
}

// agentUserAuth authenticates a user with the configured password. A password that was
// refused is not tried again for the same message.
func agentUserAuth(c *config.Agent, _ context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
	if reason != 0 {
		return nil, nil
	}
	password, err := keys.Secret(c.Users[user], "password of "+exit.Printable(user))
	if err != nil {
		return nil, err
	}
	defer password.Close()
	return userauth.EmailPasswordData(user, password.Bytes()), nil
}

// settingOf returns the setting that caused a request to be refused.
func settingOf(err error) error {
	var body *agent.BodyError
	var user *agent.UserError
	var ahead *agent.AheadError
	switch {
	case errors.As(err, &ahead):
		return fmt.Errorf("%w: raise client.agent.ahead", err)
	case errors.As(err, &body):
		return fmt.Errorf("%w, which client.agent.body permits", err)
	case errors.As(err, &user):
		return fmt.Errorf("%w: add them to client.agent.users", err)
	}
	return err
}

// explain returns the error in the form that a program sees.
func (a *Agent) explain(err error) error {
	explained := Explain(settingOf(err), a.config)
	switch {
	case a.Client.device != nil && errors.Is(err, keystore.ErrForeign):
		return fmt.Errorf("%w; %s, and start the agent again", explained, keys.MakeIdentity)
	case exit.IsAny(err, identity.ErrOtherTPM, identity.ErrCleared, identity.ErrNotInitialized, identity.ErrNotEnrolled):
		return &agent.StatusError{Status: http.StatusInternalServerError, Err: explained}
	}
	return explained
}

// report logs the outcome of a request, and reports a crypto failure to the server.
func (a *Agent) report(_ context.Context, e agent.Exchange) {
	if e.Err == nil {
		a.log.Debug("message", "took", e.Took)
		return
	}
	a.reporter.Observe(e.Err)
	if e.Status == 0 {
		a.log.Debug("request abandoned", "took", e.Took)
		return
	}
	level, fault := slog.LevelWarn, faultOf(e)
	if fault == "agent" {
		level = slog.LevelError
	}
	slog.New(a.Failures).Log(context.Background(), level, "no complete answer", "fault", fault, "status", e.Status, "begun", e.Begun, "took", e.Took, slog.Any("error", settingOf(e.Err)))
}

// faultOf says who has to act: an outage fails each request for the same reason.
func faultOf(e agent.Exchange) string {
	switch {
	case exit.IsAny(e.Err, keystore.ErrUnavailable, keystore.ErrBusy, keystore.ErrLost, keystore.ErrClosed):
		return "keystore"
	case errors.As(e.Err, new(*fs.PathError)): // the file of its tokens, or of a password
		return "agent"
	case e.Status >= http.StatusInternalServerError:
		return "server"
	}
	return "program"
}
