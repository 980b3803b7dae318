package mslhttp

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Connections limits the number of connections, in total and from each source
// ([SourceOf]). When there is one too many, the longest inactive connection is closed to
// make room, if it has been inactive for at least a second. A connection is kept if it
// carries a message of an authenticated sender, and either the application is working on
// that message or some of it was read or written in the last five seconds. If no
// connection can be closed, the new one waits up to five seconds, behind others from its
// source. At most Max connections may wait, half of them from one source; any more are
// closed.
//
// Connections of trusted proxies count only toward the total. Their exchanges count by
// the source that [Handler.Source] returns, and one too many from a source gets HTTP 503.
// The same applies to the streams of an HTTP/2 connection: of those open at the same
// time, all but one count as a connection each. On a WebSocket ([WebSocketHandler]) each
// read and write is activity.
type Connections struct {
	Max       int // zero means 1024, negative no limit
	PerSource int // zero means a quarter of Max, negative no limit
	Trusted   TrustedProxies
	Log       *slog.Logger // of what is turned away, a line a second for each [Reason]; nil means none

	mu      sync.Mutex
	all     list.List // of *boundConn, the most recently active last
	sources sourceCount
	streams int       // exchanges that share a connection with another one
	waiting list.List // of *boundConn, the newest last
	queues  sourceCount
	tick    *time.Timer // while some wait
	turned  turnedAway
}

const (
	defaultConnections = 1024
	connectionYouth    = time.Second     // before an inactive connection may be closed
	connectionPatience = 5 * time.Second // for which a connection may wait
	connectionStall    = 5 * time.Second // for which a message of an authenticated sender may stall
)

// A sourceCount counts by source. The empty source is not counted.
type sourceCount map[string]int

func (c *sourceCount) add(source string, n int) {
	if source == "" {
		return
	}
	if *c == nil {
		*c = sourceCount{}
	}
	if (*c)[source] += n; (*c)[source] == 0 {
		delete(*c, source)
	}
}

// Limits returns the limits in effect, defaults included; negative means no limit.
func (c *Connections) Limits() (most, perSource int) {
	most = cmp.Or(c.Max, defaultConnections)
	if most < 0 {
		return most, cmp.Or(c.PerSource, most)
	}
	return most, cmp.Or(c.PerSource, max(most/4, 1))
}

// Open returns how many connections are open.
func (c *Connections) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.Len()
}

// Listen returns a listener whose connections are counted. Put it below TLS and the
// PROXY protocol, and use [Connections.Context] as the HTTP server's ConnContext.
func (c *Connections) Listen(l net.Listener) net.Listener {
	bound := &boundListener{Listener: l, bounds: c, results: make(chan acceptance), closed: make(chan struct{})}
	go bound.run()
	return bound
}

// Context is for http.Server.ConnContext: it lets a [Handler] report activity on the
// connection.
func (c *Connections) Context(ctx context.Context, conn net.Conn) context.Context {
	if bound := boundOf(conn); bound != nil {
		return context.WithValue(ctx, boundKey{}, bound)
	}
	return ctx
}

// A boundKey is the key of the connection in the context of its requests.
type boundKey struct{}

// A boundListener accepts connections while there is room.
type boundListener struct {
	net.Listener
	bounds  *Connections
	results chan acceptance
	closed  chan struct{}
	once    sync.Once
}

type acceptance struct {
	conn net.Conn
	err  error
}

// run accepts connections until the listener is closed.
func (l *boundListener) run() {
	for {
		raw, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			l.end()
			return
		case err != nil:
			l.give(acceptance{nil, err})
		default:
			if conn, now := l.bounds.arrive(l, raw); now {
				l.give(acceptance{conn, nil})
			}
		}
	}
}

// end makes Accept report that the listener is closed, and closes the waiting
// connections.
func (l *boundListener) end() {
	l.once.Do(func() { close(l.closed) })
	l.bounds.dismiss(l)
}

func (l *boundListener) give(a acceptance) {
	select {
	case l.results <- a:
	case <-l.closed:
		if a.conn != nil {
			a.conn.Close()
		}
	}
}

// Accept returns the next connection that there is room for.
func (l *boundListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.results:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close stops listening, and closes the waiting connections.
func (l *boundListener) Close() error {
	l.end()
	return l.Listener.Close()
}

// A boundConn is a counted connection.
type boundConn struct {
	net.Conn
	bounds   *Connections
	listener *boundListener
	source   string // that it counts for, or empty

	// The lock of bounds guards the fields below.
	place   *list.Element // in one of the lists, until closed
	since   time.Time     // of the last activity
	proven  int           // messages under way whose senders are authenticated
	blocked int           // how many of these wait for a read or write
	under   int           // exchanges under way: more than one only in HTTP/2

	gathering gathering
	heard     atomic.Bool // something arrived
	asking    atomic.Bool // a request has begun, which no handler has seen
	madeRoom  atomic.Bool // it was closed for another one
}

// from is where the connection comes from, which may be a trusted proxy that it does not count for.
func (b *boundConn) from() string { return SourceOf(b.RemoteAddr().String()) }

// Read records that something arrived.
func (b *boundConn) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if n > 0 && !b.heard.Load() {
		b.heard.Store(true)
	}
	return n, err
}

// keeps reports whether a message under way keeps the connection open. It must make
// progress, since a replayed header authenticates a sender just as well.
func (b *boundConn) keeps() bool {
	return b.proven > b.blocked || b.proven > 0 && time.Since(b.since) < connectionStall
}

// arrive counts a connection if there is room for it. Otherwise the connection waits,
// or is closed.
func (c *Connections) arrive(l *boundListener, raw net.Conn) (conn *boundConn, now bool) {
	conn = &boundConn{Conn: raw, bounds: c, listener: l, since: time.Now()}
	address := raw.RemoteAddr().String()
	if ip, known := parseAddress(address); !known || !c.Trusted.trusts(ip) {
		conn.source = SourceOf(address)
	}
	most, _ := c.Limits()
	half := most
	if most > 1 {
		half = most / 2
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queues[conn.source] == 0 && c.admit(conn) {
		return conn, true
	}
	if full(c.waiting.Len(), most) || full(c.queues[conn.source], half) {
		c.turn(TooManyConnections, conn.from())
		raw.Close()
		return nil, false
	}
	c.queues.add(conn.source, 1)
	conn.place = c.waiting.PushBack(conn)
	c.wait()
	return nil, false
}

func full(n, most int) bool { return most >= 0 && n >= most }

// admit counts a connection if there is room for it, or room can be made.
func (c *Connections) admit(conn *boundConn) bool {
	most, perSource := c.Limits()
	if conn.source != "" && full(c.sources[conn.source], perSource) && !c.closeOne(conn.source) {
		return false
	}
	if full(c.all.Len(), most) && !c.closeOne("") {
		return false
	}
	c.sources.add(conn.source, 1)
	conn.since = time.Now()
	conn.place = c.all.PushBack(conn)
	return true
}

// closeOne closes the least active connection from source, or from any if source is
// empty.
func (c *Connections) closeOne(source string) bool {
	for e := c.all.Front(); e != nil; e = e.Next() {
		conn := e.Value.(*boundConn)
		if time.Since(conn.since) < connectionYouth {
			return false // all that follow are as young
		}
		if !conn.keeps() && (source == "" || conn.source == source) {
			c.turn(MadeRoom, conn.from())
			conn.madeRoom.Store(true)
			conn.remove()
			conn.Conn.Close()
			return true
		}
	}
	return false
}

// wait serves waiting connections until there are none.
func (c *Connections) wait() {
	if c.tick != nil || c.waiting.Len() == 0 {
		return
	}
	c.tick = time.AfterFunc(connectionYouth/8, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tick = nil
		c.serveWaiting()
		c.wait()
	})
}

// serveWaiting admits waiting connections if there is now room, and closes those that
// have waited too long.
func (c *Connections) serveWaiting() {
	without := map[string]bool{} // sources with a connection that must keep waiting
	for e, next := c.waiting.Front(), (*list.Element)(nil); e != nil; e = next {
		next = e.Next()
		conn := e.Value.(*boundConn)
		late := time.Since(conn.since) > connectionPatience
		if !late && without[conn.source] {
			continue
		}
		if !late && !c.admit(conn) {
			without[conn.source] = conn.source != ""
			continue
		}
		c.waiting.Remove(e)
		c.queues.add(conn.source, -1)
		if late {
			c.turn(TooManyConnections, conn.from())
			conn.Conn.Close()
			continue
		}
		go conn.listener.give(acceptance{conn, nil})
	}
}

// dismiss closes the waiting connections of a listener.
func (c *Connections) dismiss(l *boundListener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e, next := c.waiting.Front(), (*list.Element)(nil); e != nil; e = next {
		next = e.Next()
		if conn := e.Value.(*boundConn); conn.listener == l {
			c.turn(Stopping, conn.from())
			c.waiting.Remove(e)
			c.queues.add(conn.source, -1)
			conn.Conn.Close()
		}
	}
}

// remove stops counting the connection. The bounds must be locked.
func (b *boundConn) remove() {
	if b.place == nil {
		return
	}
	b.bounds.all.Remove(b.place)
	b.bounds.sources.add(b.source, -1)
	b.place = nil
}

// Close closes the connection.
func (b *boundConn) Close() error {
	b.bounds.mu.Lock()
	b.remove()
	b.bounds.serveWaiting()
	b.bounds.mu.Unlock()
	return b.Conn.Close()
}

// CloseWrite closes the sending direction.
func (b *boundConn) CloseWrite() error {
	half, ok := b.Conn.(interface{ CloseWrite() error })
	if !ok {
		return net.ErrClosed
	}
	return half.CloseWrite()
}
