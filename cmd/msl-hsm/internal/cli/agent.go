package cli

import (
	"context"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/clientside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/failurelog"
)

type agentFlags struct {
	listen, readyFile, logFormat string
	verbose, trace               bool
}

func agentCommand(p *program) *cobra.Command {
	var f agentFlags
	var over config.Client
	c := &cobra.Command{
		Use:   "agent [URL]",
		Short: "Let programs on this machine send messages over plain HTTP",
		Long: `Takes HTTP requests from programs on this machine and sends their data as messages,
with the identity that send would use and one session for all of them. The data of the
answer becomes the body of the response.

  curl --unix-socket agent.sock --data-binary @FILE http://agent/

Headers of a request: Msl-User, the user it is for; Msl-Non-Replayable: true;
Msl-No-Compression: true; Msl-No-Answer: true. A response with status 400 or above has
a JSON object that says why.

With client.agent.http in the configuration, whole HTTP requests reach the service behind
the server, with method, path and headers, and its responses come back as they are. A
response with the header Msl-Error is not from the service.

SIGHUP makes it read client.tls, client.agent and the PIN again; so does a change to their
files, unless client.agent.watch is off.

SIGTERM and SIGINT end it: it finishes the requests under way. If that takes 3
seconds longer than client.agent.shutdown, or if a second signal comes, it is ended by
force.`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			log, err := p.logger(serveFlags{verbose: f.verbose, logFormat: f.logFormat})
			if err != nil {
				return err
			}
			captureLog(p, log)
			ctx, end := p.stoppable(c.Context(), log)
			defer end()
			return runAgent(p, ctx, args, over, f)
		},
	}
	own := flagGroup{title: "The agent"}
	s := own.set().StringVar
	s(&f.listen, "listen", "", "unix:PATH or `ADDRESS` of the loopback interface (default a socket in $RUNTIME_DIRECTORY or $XDG_RUNTIME_DIR)")
	s(&f.readyFile, "ready-file", "", "write the agent's URL to this `FILE` when it is ready")
	s(&f.logFormat, "log-format", "auto", "`FORMAT` of the log: text, json, or auto, which is text on a terminal")
	own.set().BoolVarP(&f.verbose, "verbose", "v", false, "log every request")
	own.set().BoolVar(&f.trace, "trace", false, "log what is in the header of each message, without secrets")
	grouped(c, append([]flagGroup{own}, clientFlags(&over)...)...)
	return c
}

func runAgent(p *program, ctx context.Context, args []string, over config.Client, f agentFlags) (err error) {
	if len(args) == 1 {
		over.URL = args[0]
	}
	c, err := agentSettings(p, over)
	if err != nil {
		return err
	}
	p.stop.allow(c.Client.Agent.Shutdown)
	config.Override(&c.Client.Agent.Listen, f.listen)
	log, err := p.logger(serveFlags{verbose: f.verbose, logFormat: f.logFormat})
	if err != nil {
		return err
	}
	c.Keystore.Log = log
	countRefusals(&c.Keystore, ctx, "agent")
	reporter, err := agentReporter(p, over, f.verbose)
	if err != nil {
		return err
	}
	defer reporter.Close() // logs whatever it could not send
	os.Remove(f.readyFile) // possibly left by an earlier agent
	listener, err := listenLocally("--listen", c.Client.Agent.Listen, log)
	if err != nil {
		return err
	}
	defer listener.Close() // closing again after Shutdown is harmless
	hangup := hangups()
	defer signal.Stop(hangup)
	asRead := *c
	p.stop.during("the key store to open")
	a, err := clientside.OpenAgent(c, ctx, log, reporter)
	if err != nil {
		reporter.Observe(err)
		return err
	}
	defer func() {
		a.Failures.Flush()
		p.stop.during("the key store to close")
		exit.Closing(&err, a.Client)
	}()
	if f.trace {
		a.Client.MSL.Headers = logHeaders(log)
	}
	defer a.Attest(ctx)()
	log.Info("serving", "address", urlOf(listener), "server", c.Client.URL, "identity", c.Client.Identity,
		"state", c.Client.State, "anti_rollback", c.Client.AntiRollback, "fips140", keys.FIPSOf().Mode, "fips140_module", keys.FIPSOf().Module)
	live, err := liveAgent(p, a, asRead, over, f)
	if err != nil {
		return err
	}
	defer reloadOn(hangup, live.Reload)()
	defer live.Watch()()
	return answerUntil(p, ctx, live.Server(), listener, c.Client.Agent.Shutdown, f.readyFile)
}

// liveAgent returns an agent whose configuration can be reloaded.
func liveAgent(p *program, a *clientside.Agent, asRead config.Config, over config.Client, f agentFlags) (*clientside.LiveAgent, error) {
	path, err := p.configPath()
	if err != nil {
		return nil, err
	}
	live := &clientside.LiveAgent{Path: path, Read: func() (*config.Config, error) {
		c, err := agentSettings(p, over)
		if err == nil {
			config.Override(&c.Client.Agent.Listen, f.listen)
		}
		return c, err
	}}
	live.Begin(a, asRead)
	return live, nil
}

func agentSettings(p *program, over config.Client) (*config.Config, error) {
	c, err := p.configure()
	if err != nil {
		return nil, err
	}
	if err := notFromEnvironment("--password-source", over.Password); err != nil {
		return nil, err
	}
	overrideClient(&c.Client, over)
	config.Override(&c.Client.URL, over.URL)
	return c, checkUsers(&c.Client)
}

// checkUsers requires a source for every password: an agent has no terminal to prompt
// at.
func checkUsers(c *config.Client) error {
	c.User = msl.CanonicalName(c.User)
	if c.User != "" && c.UserScheme == "EMAIL_PASSWORD" && c.Agent.Users[c.User] == "" {
		if c.Agent.Users == nil {
			c.Agent.Users = map[string]string{}
		}
		c.Agent.Users[c.User] = c.Password
	}
	for user, source := range c.Agent.Users {
		if source == "" || source == "prompt" {
			return exit.Usagef("no password source for %s: name one, such as file:PATH, in client.agent.users or with --password-source", exit.Printable(user))
		}
	}
	return nil
}

// agentReporter makes the reporter of crypto failures, with its own configuration: the
// identity in a report is not the client's.
func agentReporter(p *program, over config.Client, verbose bool) (*failurelog.Reporter, error) {
	c, err := p.configure()
	if err != nil {
		return nil, err
	}
	overrideClient(&c.Client, over)
	return startReporter(p, c, verbose)
}
