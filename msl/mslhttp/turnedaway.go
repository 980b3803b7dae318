package mslhttp

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"time"
)

// A Reason is why a connection or a request was turned away before a message in it was
// read, so that no [msl.Served] reports it.
type Reason string

// The reasons.
const (
	TooManyConnections Reason = "connections"   // closed: too many, and the queue was full or the wait too long
	MadeRoom           Reason = "room"          // an inactive connection was closed for a new one
	TooManyExchanges   Reason = "exchanges"     // HTTP 503: too many of one source at a time
	TooManyRequests    Reason = "rate"          // HTTP 503: more in a second than are allowed
	NoAnswer           Reason = "unanswered"    // HTTP 413 or 503 of a server whose [msl.Server.Report] is nil
	BadRequest         Reason = "request"       // by net/http: not HTTP, incomplete, a header too long, or while it stops
	BadMethod          Reason = "method"        // HTTP 405: not a POST
	BadUpgrade         Reason = "websocket"     // the request for a WebSocket was refused
	BadProxyHeader     Reason = "proxy-header"  // a trusted proxy did not begin with the PROXY protocol
	Stopping           Reason = "shutting-down" // the connection came too late
)

var reasons = []Reason{
	TooManyConnections, MadeRoom, TooManyExchanges, TooManyRequests, NoAnswer, BadRequest, BadMethod, BadUpgrade, BadProxyHeader, Stopping,
}

// tellEvery is the least time between two log lines of a reason.
const tellEvery = time.Second

// A turnedAway counts by reason.
type turnedAway struct {
	times  map[Reason]uint64
	told   map[Reason]uint64 // how many of them the log has
	source map[Reason]string // of the last one
	tick   *time.Timer       // until the log is told again
}

// TurnedAway returns how many connections and requests were turned away, by reason. Every
// reason is there.
func (c *Connections) TurnedAway() map[Reason]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[Reason]uint64, len(reasons))
	for _, r := range reasons {
		all[r] = c.turned.times[r]
	}
	return all
}

// TurnAway counts a request that was turned away, at the [Connections] of its connection,
// if there are any. ctx is that of the request.
func TurnAway(ctx context.Context, why Reason, source string) {
	if conn, _ := ctx.Value(boundKey{}).(*boundConn); conn != nil {
		conn.bounds.turnAway(why, source)
	}
}

func (c *Connections) turnAway(why Reason, source string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn(why, source)
}

// turn is turnAway for a caller that holds the lock.
func (c *Connections) turn(why Reason, source string) {
	t := &c.turned
	if t.times == nil {
		t.times, t.told, t.source = map[Reason]uint64{}, map[Reason]uint64{}, map[Reason]string{}
	}
	t.times[why]++
	t.source[why] = source
	if c.Log != nil && t.tick == nil {
		t.tick = time.AfterFunc(0, c.tell) // a log may block
	}
}

// tell writes a line for each reason that has happened since the last time.
func (c *Connections) tell() {
	c.mu.Lock()
	if c.turned.tick = nil; !maps.Equal(c.turned.times, c.turned.told) {
		c.turned.tick = time.AfterFunc(tellEvery, c.tell)
	}
	times, told, source := maps.Clone(c.turned.times), maps.Clone(c.turned.told), maps.Clone(c.turned.source)
	maps.Copy(c.turned.told, times)
	c.mu.Unlock()
	for _, why := range reasons {
		if n := times[why] - told[why]; n > 0 {
			c.Log.LogAttrs(context.Background(), why.level(), "turned away", slog.String("reason", string(why)), slog.Uint64("times", n), slog.String("source", source[why]))
		}
	}
}

// level is a warning if it is about a limit or a proxy of this side.
func (r Reason) level() slog.Level {
	switch r {
	case BadRequest, BadMethod, BadUpgrade, MadeRoom, Stopping:
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// Watch makes an HTTP server, which has its handler, count the requests that net/http
// refuses itself ([BadRequest]), as far as its connection states tell. Its ConnContext
// must include [Connections.Context].
func (c *Connections) Watch(s *http.Server) {
	next := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, _ := r.Context().Value(boundKey{}).(*boundConn); conn != nil {
			conn.asking.Store(false)
		}
		next.ServeHTTP(w, r)
	})
	s.ConnState = func(conn net.Conn, state http.ConnState) {
		bound := boundOf(conn)
		switch {
		case bound == nil:
		case state != http.StateClosed:
			bound.asking.Store(state == http.StateActive)
		case bound.asking.Load() && !bound.madeRoom.Load():
			c.turnAway(BadRequest, SourceOf(conn.RemoteAddr().String()))
		}
	}
}

// boundOf returns the counted connection below others, or nil.
func boundOf(conn net.Conn) *boundConn {
	for {
		switch outer := conn.(type) {
		case *TLSConn:
			conn = outer.wire.Conn
		case unversioned:
			conn = outer.tls
		case proxiedConn:
			conn = outer.Raw()
		case *boundConn:
			return outer
		default:
			return nil
		}
	}
}

// Read counts a connection of a trusted proxy that does not begin with a PROXY header. One
// that ends before its first byte may be a health check.
func (c proxiedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil {
		return n, nil
	}
	if bound := boundOf(c); bound != nil && c.ProxyHeader() == nil && bound.heard.CompareAndSwap(true, false) {
		bound.bounds.turnAway(BadProxyHeader, SourceOf(bound.Conn.RemoteAddr().String()))
	}
	return n, err
}
