package clientside

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/filewatch"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A LiveAgent is an agent whose configuration can be reloaded while it runs. Requests
// that began earlier keep their settings. The session stays.
type LiveAgent struct {
	// Read reads the current configuration from disk.
	Read func() (*config.Config, error)
	// Path is the path of the configuration, or empty.
	Path string

	now       atomic.Pointer[agentGeneration]
	reloading sync.Mutex
	files     filewatch.Watch
}

// An agentGeneration is an agent with one configuration.
type agentGeneration struct {
	*Agent
	asRead  config.Config // before a certificate or the TPM determined the identity
	handler http.Handler
}

// Begin starts serving an opened agent, with the configuration as it was read.
func (l *LiveAgent) Begin(a *Agent, asRead config.Config) {
	l.now.Store(&agentGeneration{a, asRead, a.handler()})
	a.Client.MSL.Transport = l
	if a.config.Client.UserScheme == "EMAIL_PASSWORD" {
		a.Client.MSL.UserAuth = func(ctx context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
			return agentUserAuth(&l.now.Load().config.Client.Agent, ctx, user, reason)
		}
	}
	l.files.Took(filewatch.At(l.watched()...))
}

// RoundTrip carries a message to the server.
func (l *LiveAgent) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	return l.now.Load().transport.RoundTrip(ctx, write)
}

// ServeHTTP answers a program.
func (l *LiveAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.now.Load().handler.ServeHTTP(w, r)
}

// Reload reads the configuration again, and with it the TLS certificates and the PIN. If
// anything is wrong, the agent continues as before, which is logged.
func (l *LiveAgent) Reload() {
	if err := l.reload(); err != nil {
		l.now.Load().log.Error("configuration not reloaded: the agent continues with the previous one", "error", exit.OneLine(err))
	}
}

func (l *LiveAgent) reload() error {
	l.reloading.Lock()
	defer l.reloading.Unlock()
	old := l.now.Load()
	seen := filewatch.At(l.watched()...)
	c, err := config.ReadPlain(l.Path, l.Read, (*config.Config).CheckAgent, (*config.Config).AgentFiles)
	if err != nil {
		return err
	}
	changed, restart := old.asRead.KeepAgent(c)
	asRead := *c
	c.Client.Identity = old.config.Client.Identity
	next, err := old.renewed(c)
	if err != nil {
		return err
	}
	l.now.Store(&agentGeneration{next, asRead, next.handler()})
	l.files.Took(seen.Of(l.watched()...))
	old.transport.Client.CloseIdleConnections()
	next.log.Info("configuration reloaded", "changed", changed, "needs_restart", restart)
	return nil
}

// renewed returns the agent with another configuration and the same client.
func (a *Agent) renewed(c *config.Config) (*Agent, error) {
	if store, ok := a.Client.store.(keys.Store); ok {
		if err := keys.Reread(&c.Keystore, store); err != nil {
			return nil, err
		}
	}
	transport, err := agentTransport(c, a.Client.store)
	return &Agent{config: c, Client: a.Client, Failures: a.Failures, log: a.log, reporter: a.reporter, transport: transport}, err
}

// Watch reloads the configuration when it or a file that it names was replaced, until the
// returned function is called. Settings may disable this.
func (l *LiveAgent) Watch() (end func()) {
	every := time.Duration(l.now.Load().config.Client.Agent.Watch)
	if every == 0 {
		return func() {}
	}
	l.files.Files, l.files.Take, l.files.Every = l.watched, l.take, every
	return l.files.Start()
}

// watched are the files currently watched.
func (l *LiveAgent) watched() []string {
	return slices.Concat([]string{l.Path}, l.now.Load().config.AgentFiles())
}

// take takes files that were replaced. An unusable one is reported once.
func (l *LiveAgent) take(changed []string, tried bool) error {
	err := l.reload()
	if err != nil && !tried {
		l.now.Load().log.Warn("changed files cannot be used: the agent continues with their previous contents", "files", strings.Join(changed, ", "), "error", exit.OneLine(err))
	}
	return err
}

// Server limits what a program may consume before its request is read.
func (l *LiveAgent) Server() *http.Server {
	return &http.Server{
		Handler:           l,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,

		DisableGeneralOptionsHandler: true, // net/http would itself answer 200 to OPTIONS *
		ErrorLog:                     slog.NewLogLogger(l.now.Load().log.Handler(), slog.LevelDebug),
	}
}
