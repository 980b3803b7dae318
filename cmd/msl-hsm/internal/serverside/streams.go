package serverside

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// Streams serve persistent connections at the configured places.
type Streams struct {
	places []*streamPlace
	Pushes *Pushes
}

// A streamPlace is where connections of one kind are accepted.
type streamPlace struct {
	path     string       // of WebSockets, or empty
	listener net.Listener // or nil
	server   *mslhttp.StreamServer
}

// OpenStreams listens for persistent connections.
func OpenStreams(c *config.Config, live *Live, listen ListenFunc, peers *slog.Logger) (*Streams, error) {
	all := &Streams{Pushes: &Pushes{}}
	s := live.Service()
	peer, err := servePeer(c, s, all.Pushes)
	if err != nil {
		return nil, err
	}
	for _, p := range []struct {
		setting, path, listen string
		serve                 func(context.Context, *mslhttp.StreamConn) error
	}{
		{"server.stream", c.Server.Stream.Path, c.Server.Stream.Listen, live.serve(serveStream)},
		{"server.peer", c.Server.Peer.Path, c.Server.Peer.Listen, live.serve(peer)},
		{"server.push", c.Server.Push.Path, c.Server.Push.Listen, live.serve(servePushes(all.Pushes))},
	} {
		place := &streamPlace{path: p.path, server: streamServer(c, s, p.serve, peers)}
		if p.path == "none" {
			place.path = ""
		}
		if p.listen != "" {
			if place.listener, err = listenFor(c, s, listen, p.setting, p.listen, peers); err != nil {
				all.closeListeners()
				return nil, err
			}
		}
		all.places = append(all.places, place)
	}
	return all, nil
}

func streamServer(c *config.Config, s *Service, serve func(context.Context, *mslhttp.StreamConn) error, peers *slog.Logger) *mslhttp.StreamServer {
	return &mslhttp.StreamServer{
		Serve: serve, Timeout: c.Server.Limits.Timeout, Idle: c.Server.Limits.Idle, Log: peers,
		Source: mslhttp.TrustedProxies(c.Server.TrustedProxies).Source,
		Context: func(ctx context.Context, conn net.Conn) context.Context {
			return mslhttp.TLSContext(s.Connections.Context(ctx, conn), conn)
		},
	}
}

// A ListenFunc listens for TCP at the address of a setting.
type ListenFunc func(setting, address string) (net.Listener, error)

// serve makes connections be served with the settings current when they begin.
func (l *Live) serve(by func(*generation, context.Context, *mslhttp.StreamConn) error) func(context.Context, *mslhttp.StreamConn) error {
	return func(ctx context.Context, c *mslhttp.StreamConn) error { return by(l.now.Load(), ctx, c) }
}

// listenFor listens like the place for HTTP: within the limits of connections, and with
// TLS if that is configured.
func listenFor(c *config.Config, s *Service, listen ListenFunc, setting, address string, peers *slog.Logger) (net.Listener, error) {
	l, err := listen(setting, address)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another address in %s.listen", err, setting)
	}
	secured, err := s.Secured(BehindProxies(&c.Server, s.Connections.Listen(l)), peers)
	if err != nil {
		l.Close()
	}
	return secured, err
}

// Start serves the connections of the listeners. It returns their URLs.
func (a *Streams) Start() (urls []string) {
	for _, p := range a.places {
		if p.listener != nil {
			go p.server.ServeListener(p.listener)
			scheme := map[string]string{"http": "tcp", "https": "tls"}[SchemeOf(p.listener)]
			urls = append(urls, scheme+"://"+p.listener.Addr().String())
		}
	}
	return urls
}

// Beside intercepts the WebSockets among the requests to a handler.
func (a *Streams) Beside(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			for _, p := range a.places {
				if p.path != "" && p.path == r.URL.Path {
					p.server.ServeHTTP(w, r)
					return
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Shutdown stops listening, and waits for the messages in flight until ctx ends.
func (a *Streams) Shutdown(ctx context.Context) error {
	a.closeListeners()
	results := make(chan error, len(a.places))
	for _, p := range a.places {
		go func() { results <- p.server.Shutdown(ctx) }()
	}
	var errs []error
	for range a.places {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// Close stops listening, for a server that never started.
func (a *Streams) Close() error {
	a.closeListeners()
	return nil
}

func (a *Streams) closeListeners() {
	for _, p := range a.places {
		if p.listener != nil {
			p.listener.Close()
		}
	}
}

// serveStream answers one message after another.
func serveStream(g *generation, ctx context.Context, c *mslhttp.StreamConn) error {
	return g.MSL.ServeStream(ctx, c.Source, c, g.whileTrusted(c, g.handle))
}
