package serverside

import (
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// answers returns the handler of messages and enrollment requests over HTTP.
func answers(c *config.Config, s *Service, handle msl.Handler, peers *slog.Logger) (http.Handler, error) {
	source := mslhttp.TrustedProxies(c.Server.TrustedProxies).Source
	answers := &mslhttp.Handler{
		Server: s.MSL, Handle: handle, MaxBody: c.Server.Limits.Body, Timeout: c.Server.Limits.Timeout,
		Idle: c.Server.IdleTime(), Log: peers, Source: source,
	}
	paths := http.NewServeMux()
	paths.Handle("/", ownTime(answers))
	if path := c.Server.Admin.Health; path != "" {
		paths.Handle("GET "+path, s.brief())
	}
	if s.Devices == nil {
		return paths, nil
	}
	if s.endpoint == nil {
		if err := openEndpoint(c, s, peers, source); err != nil {
			return nil, err
		}
	}
	paths.Handle(c.Server.Enrollment.Path, ownTime(s.endpoint))
	return paths, nil
}

// ownTime lifts the time limit of the HTTP server from requests whose handler has its own.
func ownTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // not every ResponseWriter has one
		next.ServeHTTP(w, r)
	})
}

// brief answers strangers: the status says whether the server is ready, and nothing says
// why not.
func (s *Service) brief() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(statusOf(s.Ready(r.Context())))
	})
}

func statusOf(r Readiness) int {
	if !r.Ready {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}

// HTTPServer limits what a connection may cost before a message is read; mslhttp limits
// the rest.
func HTTPServer(connections *mslhttp.Connections, handler http.Handler, peers *slog.Logger) *http.Server {
	server := &http.Server{
		Handler: handler,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return mslhttp.TLSContext(connections.Context(ctx, conn), conn)
		},
		ReadTimeout:    10 * time.Second, // net/http reads a body before it answers without the body
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 8 << 10, // a short header line takes a hundred bytes

		DisableGeneralOptionsHandler: true, // net/http would itself answer 200 to OPTIONS *
		ErrorLog:                     log.New(serverErrors{peers}, "", 0),
	}
	connections.Watch(server)
	return server
}

// serverErrors receives net/http's log lines about connections: mostly what peers did,
// sometimes what an operator must know.
type serverErrors struct{ log *slog.Logger }

// Write logs a line at the level of its content.
func (e serverErrors) Write(line []byte) (int, error) {
	text, level := strings.TrimSpace(string(line)), slog.LevelDebug
	switch {
	case strings.Contains(text, "panic serving"):
		level = slog.LevelError
	case strings.Contains(text, "Accept error"): // such as too many open files
		level = slog.LevelError
	}
	e.log.Log(context.Background(), level, "HTTP server", "error", text)
	return len(line), nil
}
