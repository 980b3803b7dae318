package main

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/agent"
	"github.com/msl-hsm/msl-hsm/msl/failurelog"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// agentConfig is how programs of this machine reach the agent.
type agentConfig struct {
	Listen   string            `yaml:"listen"`   // unix:PATH, or a loopback address and port
	Users    map[string]string `yaml:"users"`    // source of the password, by user
	Body     int64             `yaml:"body"`     // bytes of a request
	Requests int               `yaml:"requests"` // at a time
	Timeout  time.Duration     `yaml:"timeout"`  // of one of them
	Shutdown time.Duration     `yaml:"shutdown"` // for those under way
}

type agentFlags struct {
	listen, readyFile, logFormat string
	verbose                      bool
}

func agentCommand(p *program) *cobra.Command {
	var f agentFlags
	var over clientConfig
	c := &cobra.Command{
		Use:   "agent [URL]",
		Short: "Let the programs of this machine send messages by plain HTTP",
		Long: `Takes HTTP requests of programs on this machine and sends their data as messages,
with the identity that send would have: one session for all of them. The data of the
answer is the body of the response.

  curl --unix-socket agent.sock --data-binary @FILE http://agent/

Headers of a request: Msl-User, the user that it is for; Msl-Non-Replayable: true;
Msl-No-Answer: true. A status from 400 on comes with a JSON object that says why.

SIGTERM and SIGINT end it: it finishes the requests under way. Where that takes 3
seconds more than client.agent.shutdown, and with a second signal at once, it is ended
by force.`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			log, err := p.logger(serveFlags{verbose: f.verbose, logFormat: f.logFormat})
			if err != nil {
				return err
			}
			ctx, end := p.stoppable(c.Context(), log)
			defer end()
			return runAgent(p, ctx, args, over, f)
		},
	}
	own := flagGroup{title: "The agent"}
	s := own.set().StringVar
	s(&f.listen, "listen", "", "unix:PATH or `ADDRESS` of the loopback interface (default a socket in $RUNTIME_DIRECTORY or $XDG_RUNTIME_DIR)")
	s(&f.readyFile, "ready-file", "", "write the agent's URL to this `FILE` when it is ready")
	s(&f.logFormat, "log-format", "auto", "text, json, or auto: text on a terminal")
	own.set().BoolVarP(&f.verbose, "verbose", "v", false, "log every request")
	grouped(c, append([]flagGroup{own}, clientFlags(&over)...)...)
	completeNames(c)
	return c
}

func runAgent(p *program, ctx context.Context, args []string, over clientConfig, f agentFlags) (err error) {
	if len(args) == 1 {
		over.URL = args[0]
	}
	c, err := agentSettings(p, over)
	if err != nil {
		return err
	}
	p.stop.allow(c.Client.Agent.Shutdown)
	override(&c.Client.Agent.Listen, f.listen)
	log, err := p.logger(serveFlags{verbose: f.verbose, logFormat: f.logFormat})
	if err != nil {
		return err
	}
	c.Keystore.log = log
	reporter, err := agentReporter(p, over, f.verbose)
	if err != nil {
		return err
	}
	defer reporter.Close() // what it could not send, it has logged
	os.Remove(f.readyFile) // of an earlier agent; there is none most of the time
	listener, err := listenLocally(c.Client.Agent.Listen)
	if err != nil {
		return err
	}
	defer listener.Close() // again after Shutdown, which does no harm
	p.stop.during("the key store to open")
	a, err := openAgent(c, ctx, log, reporter)
	if err != nil {
		reporter.Observe(err)
		return err
	}
	defer func() {
		p.stop.during("the key store to close")
		closing(&err, a.client)
	}()
	log.Info("serving", "address", urlOf(listener), "server", c.Client.URL, "identity", c.Client.Identity,
		"state", c.Client.State, "anti_rollback", c.Client.AntiRollback)
	return answerUntil(p, ctx, a.server(), listener, c.Client.Agent.Shutdown, f.readyFile)
}

func agentSettings(p *program, over clientConfig) (*config, error) {
	c, err := p.configure()
	if err != nil {
		return nil, err
	}
	if err := notFromEnvironment("--password-source", over.Password); err != nil {
		return nil, err
	}
	overrideClient(&c.Client, over)
	override(&c.Client.URL, over.URL)
	return c, checkUsers(&c.Client)
}

// checkUsers asks that every password has a source: nobody sits at a terminal.
func checkUsers(c *clientConfig) error {
	if c.User != "" && c.UserScheme == "EMAIL_PASSWORD" && c.Agent.Users[c.User] == "" {
		if c.Agent.Users == nil {
			c.Agent.Users = map[string]string{}
		}
		c.Agent.Users[c.User] = c.Password
	}
	for user, source := range c.Agent.Users {
		if source == "" || source == "prompt" {
			return usagef("no password source for %s: name one, as file:PATH, in client.agent.users or with --password-source", printable(user))
		}
	}
	return nil
}

// agentReporter reports crypto failures, with a configuration of its own: a report's
// identity is not the client's.
func agentReporter(p *program, over clientConfig, verbose bool) (*failurelog.Reporter, error) {
	c, err := p.configure()
	if err != nil {
		return nil, err
	}
	overrideClient(&c.Client, over)
	return startReporter(p, c, verbose)
}

// settle makes the paths absolute.
func (c *agentConfig) settle(dir string) {
	if path, ok := cutUnix(c.Listen); ok {
		c.Listen = "unix:" + within(dir, path)
	}
	for user, source := range c.Users {
		c.Users[user] = settled(dir, source)
	}
}

// An agentProcess sends for the programs of this machine.
type agentProcess struct {
	config   *config
	client   *client
	log      *slog.Logger
	reporter *failurelog.Reporter
}

func openAgent(c *config, ctx context.Context, log *slog.Logger, reporter *failurelog.Reporter) (*agentProcess, error) {
	if c.Client.Agent.Requests < 1 {
		return nil, usagef("client.agent.requests is %d: want at least 1", c.Client.Agent.Requests)
	}
	warnings := slog.NewLogLogger(log.Handler(), slog.LevelWarn).Writer()
	tell := &story{out: warnings}
	k, err := openClient(c, ctx, tell)
	if err != nil {
		return nil, err
	}
	tell.remind()
	k.msl.State = agent.WatchState(k.msl.State, func(r msl.ClientRecord) {
		log.Info("new master token", "key_exchange", r.KeyExchange)
	})
	if c.Client.UserScheme == "EMAIL_PASSWORD" {
		k.msl.UserAuth = func(ctx context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
			return agentUserAuth(&c.Client.Agent, ctx, user, reason)
		}
	}
	web, err := webClient(c, k.store)
	if err != nil {
		k.Close()
		return nil, err
	}
	k.msl.Transport = &mslhttp.Transport{URL: c.Client.URL, Client: pooled(web, c.Client.Agent.Requests), MaxAnswer: c.Client.Limits.Answer}
	return &agentProcess{config: c, client: k, log: log, reporter: reporter}, nil
}

// pooled keeps as many connections as there are requests at a time.
func pooled(web *http.Client, connections int) *http.Client {
	transport, ok := web.Transport.(*http.Transport)
	if !ok {
		transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	transport.MaxIdleConnsPerHost = connections
	return &http.Client{Transport: transport}
}

// handler is the agent of the configuration, in which a time of 0 is no bound, and a
// body of 0 bytes is one without data.
func (a *agentProcess) handler() http.Handler {
	own := &a.config.Client
	h := &agent.Handler{
		Client: a.client.msl, Recipient: own.Recipient, User: own.User, Users: slices.Collect(maps.Keys(own.Agent.Users)),
		MaxBody: own.Agent.Body, Requests: own.Agent.Requests, Timeout: own.Agent.Timeout,
		Explain: a.explain, Report: a.report,
	}
	if h.Timeout == 0 {
		h.Timeout = -1
	}
	if h.MaxBody <= 0 {
		return http.MaxBytesHandler(h, 0)
	}
	return h
}

// agentUserAuth proves a user with the password that the configuration names. A password
// that was refused is not tried again for the same message.
func agentUserAuth(c *agentConfig, _ context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
	if reason != 0 {
		return nil, nil
	}
	password, err := secret(c.Users[user], "password of "+printable(user))
	if err != nil {
		return nil, err
	}
	defer password.Close()
	return userauth.EmailPasswordData(user, password.Bytes()), nil
}
