package mslhttp

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// A StreamServer serves persistent connections: those of listeners, and WebSockets
// ([StreamServer.ServeHTTP]). Its fields must not change after the first connection.
type StreamServer struct {
	// Serve owns the connection until it returns: it may use [msl.Server.ServeStream], or
	// a [msl.Conn]. Its context ends when the connection's time is up.
	Serve func(ctx context.Context, c *StreamConn) error

	// Timeout is how long the sender of a message has to prove its identity, from the
	// beginning of the connection or the first byte of a later message, and how long a
	// message may take if its sender never does; zero means one minute, negative no
	// limit.
	Timeout time.Duration
	// Idle ends a connection on which nothing arrived for that time. Zero means no limit
	// for an authenticated peer: it stays connected while its system answers TCP
	// keep-alives, or the pings of its WebSocket. A write may always wait that long, or a
	// minute if Idle is zero.
	Idle time.Duration

	// Context is as in http.Server.ConnContext: that of [Connections], for connections
	// of listeners. Nil means none.
	Context func(context.Context, net.Conn) context.Context
	Source  func(*http.Request) string // of WebSockets, as in [Handler]
	Log     *slog.Logger               // of connections that failed; nil means none

	mu      sync.Mutex
	conns   map[*StreamConn]context.CancelCauseFunc
	leaving bool
	ended   *sync.Cond // signaled when a connection has ended
}

// errLeaving is why connections end when their server shuts down.
var errLeaving = errors.New("mslhttp: the server shuts down")

// ServeListener serves the connections of a listener until it is closed.
func (s *StreamServer) ServeListener(l net.Listener) error {
	for delay := time.Duration(0); ; {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // such as too many open files
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			time.Sleep(delay)
			continue
		}
		delay = 0
		go s.accepted(conn)
	}
}

// accepted serves a connection of a listener.
func (s *StreamServer) accepted(conn net.Conn) {
	defer conn.Close()
	ctx := context.Background()
	if s.Context != nil {
		ctx = s.Context(ctx, conn)
	}
	if secure, ok := conn.(*TLSConn); ok && secure.HandshakeContext(ctx) != nil {
		return // already reported
	}
	source := SourceOf(conn.RemoteAddr().String())
	exchange, ok := beginExchange(ctx, source)
	if !ok {
		return
	}
	defer exchange.end()
	if err := s.run(withRequest(ctx, originOf(conn)), &StreamConn{Conn: conn, Source: source, exchange: exchange.lasting(), idle: s.Idle}); err != nil {
		s.log(ctx, source, err)
	}
}

// originOf describes the origin of a connection like that of a request on it.
func originOf(conn net.Conn) *http.Request {
	r := &http.Request{RemoteAddr: conn.RemoteAddr().String()}
	if secure, ok := conn.(*TLSConn); ok {
		state := secure.ConnectionState()
		r.TLS = &state
	}
	return r
}

func (s *StreamServer) log(ctx context.Context, source string, err error) {
	if s.Log != nil {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "connection failed", slog.String("source", source), slog.Any("error", err))
	}
}

// ServeHTTP upgrades a request to a WebSocket and serves it.
func (s *StreamServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := &WebSocketHandler{Idle: s.Idle, Log: s.Log, Source: s.Source}
	h.Serve = func(ctx context.Context, conn net.Conn, r *http.Request) error {
		return s.run(ctx, &StreamConn{Conn: conn, Source: source(s.Source, r), pinged: true})
	}
	h.ServeHTTP(w, r)
}

func (s *StreamServer) run(ctx context.Context, c *StreamConn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.begin(cmp.Or(s.Timeout, defaultTimeout), cancel)
	if !s.add(c, cancel) {
		TurnAway(ctx, Stopping, c.Source)
		return errLeaving
	}
	defer s.remove(c)
	defer c.end()
	err := s.Serve(ctx, c)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

func (s *StreamServer) add(c *StreamConn, cancel context.CancelCauseFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns, s.ended = map[*StreamConn]context.CancelCauseFunc{}, sync.NewCond(&s.mu)
	}
	if !s.leaving {
		s.conns[c] = cancel
	}
	return !s.leaving
}

func (s *StreamServer) remove(c *StreamConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.ended.Broadcast()
}

// Shutdown ends the connections that are between two messages, and waits for the others
// until ctx ends; it then cuts off the rest, which is an error. Close the listeners
// first.
func (s *StreamServer) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving = true; s.ended == nil {
		return nil
	}
	for c := range s.conns {
		c.leave()
	}
	late := false
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = len(s.conns) > 0
		for c, cancel := range s.conns {
			cancel(errLeaving)
			c.cut()
		}
		s.ended.Broadcast()
	})()
	for len(s.conns) > 0 {
		s.ended.Wait()
	}
	if late {
		return context.Cause(ctx)
	}
	return nil
}
