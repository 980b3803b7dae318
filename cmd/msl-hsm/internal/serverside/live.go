package serverside

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/statuspage"
	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/internal/filewatch"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A Live is a server whose configuration can be reloaded while it runs. Messages and
// connections that began earlier keep their settings.
type Live struct {
	// Read reads the current configuration from disk.
	Read func() (*config.Config, error)
	// Path is the path of the configuration, or empty.
	Path string
	Log  *slog.Logger

	peers     *slog.Logger
	insist    bool // on TLS
	now       atomic.Pointer[generation]
	reloading sync.Mutex

	tokens statuspage.Tokens      // for the operators' pages
	page   atomic.Pointer[string] // its URL, if there is one
	files  filewatch.Watch
}

// A generation is a server with one configuration.
type generation struct {
	*Service
	config  config.Config // as it was read
	handle  msl.Handler   // of the messages' data
	answers http.Handler  // of messages over HTTP
	stop    context.CancelFunc
}

// Begin makes the first generation of an opened service.
func (l *Live) Begin(c *config.Config, s *Service, insist bool, peers *slog.Logger) error {
	l.insist, l.peers = insist, peers
	asRead := *c
	asRead.Server.Identity = s.asRead
	g, err := l.generate(c, s)
	if err != nil {
		return err
	}
	g.config = asRead
	l.use(g, nil)
	l.files.Took(filewatch.At(l.watched()...))
	s.Metrics.Watch(func() []metrics.Value { return l.now.Load().values() })
	return nil
}

// generate makes everything around a service that depends on the configuration.
func (l *Live) generate(c *config.Config, s *Service) (g *generation, err error) {
	g = &generation{Service: s, config: *c}
	application, err := Application(c, s, l.peers)
	if err != nil {
		return nil, err
	}
	g.handle = mslhttp.Protection(c.Server.Require).Demand(application)
	if s.tls, err = tlsServer(c, s, l.insist, l.peers); err != nil {
		return nil, err
	}
	if err := noteStateCertificate(&c.Server.State, s); err != nil {
		return nil, err
	}
	g.answers, err = answers(c, s, g.handle, l.peers)
	return g, err
}

// use makes a generation answer messages from now on, and continue what former counted and
// knew; former is nil for the first one.
func (l *Live) use(g, former *generation) {
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	if former != nil {
		g.MSL.Continue(former.MSL)
	}
	if u := g.upstream; u != nil {
		if former != nil && former.upstream != nil {
			u.Continue(former.upstream)
		}
		_ = u.Start(ctx) // Application has verified its fields
	}
	l.now.Store(g)
}

// ServeHTTP answers messages.
func (l *Live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.now.Load().answers.ServeHTTP(w, r)
}

// Service returns the current service.
func (l *Live) Service() *Service { return l.now.Load().Service }

// Close ends the current server's background work, such as health checks, and releases
// its keys. The service with which it began is left to its owner.
func (l *Live) Close() error {
	g := l.now.Load()
	g.stop()
	return g.retire()
}

// A Reloaded describes what a server took from a reloaded configuration.
type Reloaded struct {
	Changed  []string `json:"changed"`         // settings that hold from now on
	Restart  []string `json:"needs_restart"`   // settings that hold after a restart
	Versions []uint32 `json:"issuer_versions"` // of the issuer key: the first one issues
}

// Reload reads the configuration again, and with it certificates, CAs, revocation lists,
// the PIN, texts for users, and the versions of the keys. If anything is wrong, the error
// says so, and the server continues as before.
func (l *Live) Reload() (Reloaded, error) {
	r, err := l.again()
	if err != nil {
		l.Log.Error("configuration not reloaded: the server continues with the previous one", "error", exit.OneLine(err))
	}
	return r, err
}

// again is Reload, which the caller logs if it fails.
func (l *Live) again() (r Reloaded, err error) {
	l.reloading.Lock()
	defer l.reloading.Unlock()
	old := l.now.Load()
	seen := filewatch.At(l.watched()...)
	c, err := config.ReadPlain(l.Path, l.Read, (*config.Config).CheckServer, (*config.Config).Files)
	if err != nil {
		return r, err
	}
	r.Changed, r.Restart = old.config.Keep(c)
	asRead := *c
	g, err := l.next(c, old)
	if err != nil {
		return r, err
	}
	g.config = asRead
	l.use(g, old)
	l.pair(g)
	l.files.Took(seen.Of(l.watched()...))
	old.stop()
	for _, k := range g.MSL.Issuer.Ring() {
		r.Versions = append(r.Versions, k.Version)
	}
	g.Tell(auditlog.Record{Event: "admin", Action: "reload", Result: "done", Detail: strings.Join(r.Changed, ", ")})
	l.Log.Info("configuration reloaded", "changed", r.Changed, "needs_restart", r.Restart, "issuer_key_versions", r.Versions)
	if err := old.retire(); err != nil { // which undoes nothing
		l.Log.Warn("keys of the previous configuration are not released", "error", exit.OneLine(err))
	}
	return r, nil
}

// pair records the current versions of the keys. After a failure, the next start
// tries again. Sessions are forgotten unless the keys are known to be those of before.
func (l *Live) pair(g *generation) {
	before := g.paired
	var err error
	g.paired, _, err = g.State.Pair(&g.config, g.Store)
	if err != nil {
		l.Log.Warn("it could not be recorded which keys the state belongs to", "error", exit.OneLine(err))
	}
	if err != nil || before == nil || admin.Replaced(g.paired, before) {
		g.MSL.Forget()
	}
}

// watched are the files currently watched.
func (l *Live) watched() []string {
	c := &l.now.Load().config
	return slices.Concat([]string{l.Path}, c.Files(), c.StartFiles())
}

// next makes the next generation, and gives it the listeners.
func (l *Live) next(c *config.Config, old *generation) (*generation, error) {
	if err := keys.Reread(&c.Keystore, old.Store); err != nil {
		return nil, err
	}
	s, err := old.renewed(c, l.peers)
	if err != nil {
		return nil, err
	}
	g, err := l.generate(c, s)
	if err == nil {
		err = s.access.reopen()
	}
	if err == nil {
		err = s.audit.reopen(c, s.Store)
	}
	if err == nil && s.tls != nil { // after everything that may fail, since it takes effect immediately
		err = s.renewTLS(s.tls)
	}
	if err != nil {
		return nil, errors.Join(err, s.retire())
	}
	return g, nil
}

// renewed builds a service with another configuration on what is open.
func (s *Service) renewed(c *config.Config, log *slog.Logger) (*Service, error) {
	messages, err := c.Server.ReadMessages()
	if err != nil {
		return nil, err
	}
	next := &Service{base: s.base, crls: maps.Clone(s.crls), least: s.least}
	if err = assemble(c, next, log); err == nil && c.Server.Identity != s.MSL.Name {
		err = exit.Usagef("server.certificate: %s is of %q, and this server is %q: restart the server if it is to change its identity", c.Server.Certificate, c.Server.Identity, s.MSL.Name)
	}
	if err != nil {
		if next.MSL != nil {
			err = errors.Join(err, next.retire())
		}
		return nil, err
	}
	say(c, next.MSL, messages)
	return next, nil
}
