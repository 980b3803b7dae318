package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/internal/logsample"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

type serveFlags struct {
	listen, state, readyFile, logFormat string
	stream, peer, admin                 string
	upstream                            []string
	verbose, trace, tls, initState      bool
}

func serveCommand(p *program) *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Answer MSL messages over HTTP",
		Long: `Answers MSL messages over HTTP. The application is an echo, or with --upstream
an ordinary HTTP service behind it: the data of each message is posted there, with
the sender in the headers Msl-Entity, Msl-User, Msl-Scheme, Msl-Encrypted,
Msl-Authenticated and Msl-Non-Replayable, the number of the message in
Msl-Message-Id, and its origin in Msl-Client-Address. The service is called only when
everything needed for the answer is ready, so never while the key store fails. server.upstream
in the configuration has more: several addresses, TLS, headers, health checks.

With server.http in the configuration, HTTP requests that an agent sends reach the service
as they are, with method, path and headers, as far as its lists allow.

Clients may also keep a connection: a WebSocket at the same URL with ws in place of
http, or with --stream TCP. With --peer it answers peers in a network in which both
sides issue tokens. See docs/peers.md.

SIGTERM and SIGINT end it: it finishes the messages in flight and closes every key
object that it made in the token. If that takes longer than server.drain and
server.shutdown together, or if a second signal comes, it is ended by force.`,
		Args: want(),
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := p.logger(f)
			if err != nil {
				return err
			}
			captureLog(p, log)
			ctx, end := p.stoppable(c.Context(), log)
			defer end()
			return runServer(p, ctx, f)
		},
	}
	c.Flags().StringVar(&f.listen, "listen", "", "`ADDRESS` to listen on; port 0 takes a free one")
	stateFlag(c, &f.state)
	c.Flags().BoolVar(&f.initState, "init-state", false, "make the state file of a new server; an existing file is an error")
	c.Flags().StringArrayVar(&f.upstream, "upstream", nil, "`URL` of the HTTP service behind this gateway; or unix:SOCKET or unix:SOCKET:/PATH; repeatable")
	c.Flags().StringVar(&f.stream, "stream", "", "`ADDRESS` for persistent TCP connections, for many messages and for channels")
	c.Flags().StringVar(&f.peer, "peer", "", "`ADDRESS` for TCP connections from peers, which issue tokens for this server")
	c.Flags().StringVar(&f.admin, "admin", "", "loopback `ADDRESS` for a status page and metrics; msl-hsm admin page prints its URL, with a token")
	c.Flags().StringVar(&f.readyFile, "ready-file", "", "write the server's URL to this `FILE` when it is ready, followed by lines with those of --stream and --peer")
	c.Flags().StringVar(&f.logFormat, "log-format", "auto", "`FORMAT` of the log: text, json, or auto, which is text on a terminal")
	c.Flags().BoolVar(&f.tls, "tls", false, "refuse to serve without TLS, which server.tls in the configuration sets up")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log every message")
	c.Flags().BoolVar(&f.trace, "trace", false, "log what is in the header of each message, without secrets")
	return c
}

func runServer(p *program, ctx context.Context, f serveFlags) error {
	c, log, err := serverSettings(p, f)
	if err != nil {
		return err
	}
	countRefusals(&c.Keystore, ctx, "server")
	reload := hangups()
	defer signal.Stop(reload)
	sockets, err := activatedSockets(&c.Server)
	if err != nil {
		return err
	}
	listener, err := sockets.listen("server.listen", c.Server.Listen)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --listen", err)
	}
	defer listener.Close() // closing again after Shutdown is harmless
	p.stop.during("the key store to open")
	return serveOn(p, ctx, c, f, listener, sockets, reload, log)
}

// serverSettings returns the configuration with the flags applied, and the log.
func serverSettings(p *program, f serveFlags) (*config.Config, *slog.Logger, error) {
	c, err := serverConfig(p, f)
	if err == nil {
		err = checkReady(f.readyFile)
	}
	if err != nil {
		return nil, nil, err
	}
	p.stop.allow(c.Server.Drain + c.Server.Shutdown)
	c.Keystore.Log, err = p.logger(f)
	return c, c.Keystore.Log, err
}

// serverConfig returns the configuration with the flags applied.
func serverConfig(p *program, f serveFlags) (*config.Config, error) {
	c, err := p.configure()
	if err != nil {
		return nil, err
	}
	config.Override(&c.Server.Listen, f.listen)
	for flag, address := range map[string]string{"--listen": c.Server.Listen, "--stream": f.stream, "--peer": f.peer} {
		if address == "" {
			continue
		}
		if err := config.CheckListen(flag, address); err != nil {
			return nil, err
		}
	}
	c.Server.State.Override(f.state)
	if err := c.Server.Upstream.URL.Set(f.upstream); err != nil {
		return nil, err
	}
	config.Override(&c.Server.Stream.Listen, f.stream)
	config.Override(&c.Server.Peer.Listen, f.peer)
	config.Override(&c.Server.Admin.Listen, f.admin)
	return c, config.CheckLoopback("--admin", f.admin)
}

// serveOn opens the keys and the state, and closes them when the server has ended.
func serveOn(p *program, ctx context.Context, c *config.Config, f serveFlags, l net.Listener, sockets sockets, reload chan os.Signal, log *slog.Logger) (err error) {
	sampled := logsample.New(log.Handler())
	peers := slog.New(sampled) // for events that any peer can cause
	begin := func(k *admin.Keys) error { return k.BeginState(f.initState, log) }
	s, err := serverside.Open(c, begin, peers)
	if err != nil {
		return err
	}
	defer func() {
		p.stop.during("the key store to close")
		sampled.Flush()
		if err = errors.Join(err, s.Close()); err == nil {
			log.Info("stopped, every key object is closed")
		}
	}()
	if err := errors.Join(forgetReady(f.readyFile), s.WarnEntities(c, log), s.WarnNames(ctx, log)); err != nil && ctx.Err() == nil {
		return err
	}
	if f.trace {
		s.Trace(logHeaders(log))
	}
	failures, err := serverside.TakeFailures(c, s, peers)
	if err != nil {
		return err
	}
	defer failures.Close()
	live, err := begun(p, c, s, f, log, peers)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, live)
	unfollow, err := live.Follow(log)
	if err != nil {
		return err
	}
	defer closing(p, unfollow)
	defer keys.MakeWay(s.Store)()
	l, err = s.Secured(serverside.BehindProxies(&c.Server, s.Connections.Listen(l)), peers)
	if err != nil {
		return err
	}
	socket := admin.Service{State: s.State, Path: c.Server.State.Path(), Socket: c.Server.Admin.Socket, Keep: admin.AcceptedFor(c), Devices: s.Devices, Tell: s.Tell, Pages: live.Pages()}
	defer socket.Listen(log).Close()
	serverside.BoundMemory(&c.Server, log, s)
	streams, more, err := openBeside(c, live, sockets, log, peers)
	if err != nil {
		return err
	}
	log.Info("serving", "address", l.Addr().String(), "identity", c.Server.Identity, "custody", c.Server.Custody,
		"issuer_key_versions", len(s.MSL.Issuer.Ring()), "upstream", c.Server.Upstream.String(), "fips140", keys.FIPSOf().Mode, "fips140_module", keys.FIPSOf().Module)
	tellPage(p, live)
	server := webServer(c, s, streams.Beside(failures.Beside(live)), peers)
	defer reloadOn(reload, func() { _, _ = live.Reload() })() // already logged
	defer live.Watch()()
	ctx, undrained := drained(ctx, c.Server.Drain, s, log)
	defer undrained()
	defer keepAlive(s)()
	return answerUntil(p, ctx, server, l, c.Server.Shutdown, f.readyFile, more...)
}

// closing ends what involves the key store: its keys also authenticate the record that
// the server is gone.
func closing(p *program, end func()) {
	p.stop.during("the key store to close")
	end()
}

// begun returns a server whose configuration can be reloaded.
func begun(p *program, c *config.Config, s *serverside.Service, f serveFlags, log, peers *slog.Logger) (*serverside.Live, error) {
	path, err := p.configPath()
	if err != nil {
		return nil, err
	}
	live := &serverside.Live{Log: log, Path: path, Read: func() (*config.Config, error) { return serverConfig(p, f) }}
	return live, live.Begin(c, s, f.tls, peers)
}

func webServer(c *config.Config, s *serverside.Service, handler http.Handler, peers *slog.Logger) *http.Server {
	server := serverside.HTTPServer(s.Connections, handler, peers)
	if c.Server.TLS.HTTP2 {
		mslhttp.AllowHTTP2(server)
	}
	return server
}

// openBeside returns the server of persistent connections, and everything that serves
// beside the HTTP server: those connections, pushed messages, and the operators' pages.
func openBeside(c *config.Config, live *serverside.Live, sockets sockets, log, peers *slog.Logger) (*serverside.Streams, []alsoServing, error) {
	streams, err := serverside.OpenStreams(c, live, sockets.listen, peers)
	if err != nil {
		return nil, nil, err
	}
	more := []alsoServing{streams}
	if err := besides(c, live, streams, log, &more); err != nil {
		for _, m := range more {
			m.Shutdown(context.Background())
		}
		return nil, nil, err
	}
	return streams, more, nil
}

func besides(c *config.Config, live *serverside.Live, streams *serverside.Streams, log *slog.Logger, more *[]alsoServing) error {
	if at := c.Server.Push.From; at != "" {
		from, err := listenLocally("server.push.from", at, log)
		if err != nil {
			return err
		}
		*more = append(*more, &besideServing{streams.Pushes.Server(log), from, ""})
	}
	if at := c.Server.Admin.Listen; at != "" {
		server, err := live.AdminServer(c)
		if err != nil {
			return err
		}
		from, err := listenLocally("server.admin.listen", at, log)
		if err != nil {
			return err
		}
		live.PageAt(urlOf(from))
		*more = append(*more, &besideServing{server, from, "admin"})
	}
	return nil
}

func (p *program) logger(f serveFlags) (*slog.Logger, error) {
	options := &slog.HandlerOptions{}
	if f.verbose {
		options.Level = slog.LevelDebug
	}
	switch {
	case f.logFormat != "auto" && f.logFormat != "text" && f.logFormat != "json":
		return nil, exit.Usagef("--log-format %q: want text, json or auto", f.logFormat)
	case f.logFormat == "text", f.logFormat == "auto" && onTerminal(p.stderr):
		return slog.New(slog.NewTextHandler(p.stderr, options)), nil
	}
	return slog.New(slog.NewJSONHandler(p.stderr, options)), nil
}

// tellPage prints a URL of the operators' page on a terminal: in a log it would give
// others access.
func tellPage(p *program, live *serverside.Live) {
	if url, err := live.PageURL(); err == nil && onTerminal(p.stdout) {
		fmt.Fprintf(p.stdout, "status page: %s\n", url)
	}
}

// logHeaders returns a function that logs the headers of messages.
func logHeaders(log *slog.Logger) func(msl.HeaderInfo) {
	return func(i msl.HeaderInfo) {
		log.LogAttrs(context.Background(), slog.LevelInfo, "header", slog.Any("", i))
	}
}

// answerUntil serves until ctx ends, and then as long as messages are in flight. If ctx
// has already ended, the server is not announced.
func answerUntil(p *program, ctx context.Context, server *http.Server, l net.Listener, shutdown time.Duration, readyFile string, more ...alsoServing) error {
	if ctx.Err() != nil {
		return nil
	}
	p.stop.during("messages in flight")
	url := urlOf(l)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	for _, m := range more {
		for _, also := range m.Start() {
			url += "\n" + also
		}
	}
	for at := range strings.SplitSeq(url, "\n") {
		fmt.Fprintf(p.stdout, "ready at %s\n", at)
	}
	if err := writeReady(readyFile, url); err != nil {
		return errors.Join(err, server.Close())
	}
	notify(daemon.SdNotifyReady)
	defer notify(daemon.SdNotifyStopping)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace := shutdown - closingTime(shutdown)
	bounded, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := shutdownAll(bounded, server, more); err != nil {
		return errors.Join(fmt.Errorf("messages were still in flight after %v and were cut off", grace), server.Close())
	}
	return nil
}

// An alsoServing serves beside the HTTP server.
type alsoServing interface {
	Start() (urls []string)
	Shutdown(context.Context) error
}

// shutdownAll shuts all of them down concurrently.
func shutdownAll(ctx context.Context, server *http.Server, more []alsoServing) error {
	results := make(chan error, len(more))
	for _, m := range more {
		go func() { results <- m.Shutdown(ctx) }()
	}
	err := server.Shutdown(ctx)
	for range more {
		err = errors.Join(err, <-results)
	}
	return err
}

// A besideServing is for programs on this machine.
type besideServing struct {
	*http.Server
	listener net.Listener
	name     string // printed when it is ready, if not empty
}

// besideConnections is how many connections programs on this machine may have at a time: any
// user may open one, and each takes a file descriptor that devices need.
const besideConnections = 256

// Start starts serving.
func (s *besideServing) Start() []string {
	limits := &mslhttp.Connections{Max: besideConnections, PerSource: -1}
	go s.Serve(limits.Listen(s.listener))
	if s.name == "" {
		return nil
	}
	return []string{s.name + " " + urlOf(s.listener)}
}
