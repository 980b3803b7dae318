package admin

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/localsocket"
)

// Listen accepts requests until it is closed; closing waits briefly for requests in
// progress. If the socket cannot be made, the server runs without it, and a warning is
// logged.
func (s Service) Listen(log *slog.Logger) io.Closer {
	socket := s.Socket
	if s.Path != "" {
		socket = socketOf(s.Path)
	}
	if socket == "" {
		return io.NopCloser(nil)
	}
	l, err := localsocket.Listen(socket, log)
	if err != nil {
		log.Warn("commands cannot reach this server while it runs", "error", exit.OneLine(err))
		return io.NopCloser(nil)
	}
	server := &http.Server{
		Handler: s.requests(), ReadHeaderTimeout: patience, ReadTimeout: patience, IdleTimeout: longPatience,
		WriteTimeout: longPatience, ConnContext: withCaller,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError), // a handler's panic

		DisableGeneralOptionsHandler: true,
	}
	go server.Serve(l)
	return listening{server, l}
}

// A listening server shuts down gracefully.
type listening struct {
	*http.Server
	socket net.Listener
}

// leaving is how long Close waits for requests in progress.
const leaving = 2 * time.Second

// Close waits for the requests in progress, then cuts them off. The socket is removed
// afterward, even if the server had not begun to listen on it.
func (l listening) Close() error {
	defer l.socket.Close()
	ctx, cancel := context.WithTimeout(context.Background(), leaving)
	defer cancel()
	if err := l.Shutdown(ctx); err == nil {
		return nil
	}
	return l.Server.Close()
}

func (s Service) requests() *http.ServeMux {
	m := http.NewServeMux()
	handle := func(pattern string, do func(*http.Request) (any, error)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { answer(w, r, do) })
	}
	handle("GET /alive", func(*http.Request) (any, error) { return nil, nil })
	if s.Path != "" { // what is in etcd commands change there
		s.registryRequests(handle)
		s.keeperRequests(handle)
		s.rotationRequests(handle)
		s.pairRequests(handle)
		m.HandleFunc("GET /state/snapshot", s.sendSnapshot)
	}
	for pattern, page := range s.Pages {
		m.Handle(pattern, page)
	}
	if s.Devices != nil {
		s.enrollmentRequests(handle)
	}
	return m
}
