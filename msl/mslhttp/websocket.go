package mslhttp

import (
	"cmp"
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

const (
	defaultIdle       = time.Minute
	defaultMaxMessage = 32 << 20
	leastIdle         = 3 * time.Millisecond // enough for three pings
)

// A WebSocketHandler turns requests into connections (RFC 6455), for channels and for
// peers that talk to each other: data is sent in binary messages, and received as one
// stream regardless of message boundaries.
//
// Requests from web pages on other hosts are refused, unless the host is among Origins:
// browsers send where a page comes from, other clients need not. This is not
// authentication; MSL provides that.
type WebSocketHandler struct {
	// Serve owns the connection until it returns: it may use [msl.Server.ServeStream], or
	// a [msl.Conn] on it. Its context ends with the request's, which a server must itself
	// end when it shuts down ([http.Server.BaseContext]). If Serve returns an error, the
	// peer can see that the connection did not end normally.
	Serve func(ctx context.Context, conn net.Conn, r *http.Request) error

	Origins    []string      // hosts of web pages, in patterns of [path.Match]
	Idle       time.Duration // see [WebSocketDialer]
	MaxMessage int64         // see [WebSocketDialer]
	Log        *slog.Logger  // of connections that failed; nil means none

	// Source is as in [Handler]. If [Connections] counts the exchanges on a connection by
	// source, a WebSocket counts as one; one too many gets HTTP 503.
	Source func(*http.Request) string
}

// ServeHTTP upgrades the request and serves it. A GET with a body gets HTTP 400.
func (h *WebSocketHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 { // net/http waits for the body before it answers
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lastWait))
	}
	if r.ContentLength != 0 && r.Method == http.MethodGet {
		TurnAway(r.Context(), BadUpgrade, source(h.Source, r))
		http.Error(w, "a request for a WebSocket must not have a body", http.StatusBadRequest)
		return
	}
	exchange, ok := beginExchange(r.Context(), source(h.Source, r))
	if !ok {
		w.Header().Set("Retry-After", retryAfter)
		http.Error(w, "too many exchanges of one source at a time", http.StatusServiceUnavailable)
		return
	}
	defer exchange.end()
	var ws *websocket.Conn
	var err error
	withSHA1(func() { ws, err = websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: h.Origins}) })
	if err != nil {
		TurnAway(r.Context(), BadUpgrade, source(h.Source, r))
		h.log(r, err)
		return // already answered
	}
	conn := newWebSocket(ws, h.Idle, h.MaxMessage)
	conn.exchange = exchange.lasting()
	defer conn.stop()
	defer ws.CloseNow() // if Serve panics
	defer context.AfterFunc(r.Context(), func() { ws.CloseNow() })()
	if err := h.Serve(withRequest(r.Context(), r), conn, r); err != nil {
		h.log(r, err)
		ws.Close(conn.status(websocket.StatusInternalError), "") // tells the peer that this is not an orderly end
		return
	}
	conn.Close()
}

func (h *WebSocketHandler) log(r *http.Request, err error) {
	if h.Log != nil {
		h.Log.LogAttrs(r.Context(), slog.LevelWarn, "websocket connection failed", slog.String("source", source(h.Source, r)), slog.Any("error", err))
	}
}

// A WebSocketDialer makes connections to a [WebSocketHandler]. The zero value is ready
// for use.
type WebSocketDialer struct {
	Client *http.Client // nil means a client with the defaults of net/http
	Header http.Header  // of the request, may be nil

	// Idle is how long a read may wait for the peer to send, and a write for it to
	// receive; zero means a minute. A silent connection stays open longer if the peer
	// answers pings, which it does while it reads.
	Idle time.Duration
	// MaxMessage limits one WebSocket message, in bytes; zero means 32 MiB. Each MSL
	// object ([msl.Limits]) is sent as one message, and none is ever held whole.
	MaxMessage int64
}

// Dial connects to a URL with the scheme ws, wss, http or https. Unless the client has its own
// redirect policy, Dial follows three redirects at most, and none that would drop TLS. ctx is used only
// while connecting. Close waits up to five seconds for the peer to close, too.
func (d *WebSocketDialer) Dial(ctx context.Context, url string) (net.Conn, error) {
	var ws *websocket.Conn
	var response *http.Response
	var err error
	withSHA1(func() {
		ws, response, err = websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: posting(d.Client), HTTPHeader: d.Header})
	})
	if err != nil && response != nil && response.StatusCode != http.StatusSwitchingProtocols {
		return nil, statusError(response)
	}
	if err != nil {
		return nil, fmt.Errorf("mslhttp: %w", safetext.Brief(err))
	}
	return newWebSocket(ws, d.Idle, d.MaxMessage), nil
}

// withSHA1 permits SHA-1 during open if GODEBUG=fips140=only is set: RFC 6455 section 1.3
// uses it to check that the other side supports WebSockets; it neither hides nor signs
// anything. TLS still follows FIPS 140-3.
func withSHA1(open func()) { fips140.WithoutEnforcement(open) }

// A webSocket presents a WebSocket connection as a stream. It pings the peer, and ends if
// the peer is silent.
type webSocket struct {
	net.Conn
	ws   *websocket.Conn
	idle time.Duration
	stop context.CancelFunc // of the pings

	exchange *underWay   // its record among the counted connections, or nil
	broken   atomic.Bool // a read failed
}

func newWebSocket(ws *websocket.Conn, idle time.Duration, size int64) *webSocket {
	idle = max(cmp.Or(max(idle, 0), defaultIdle), leastIdle)
	ctx, stop := context.WithCancel(context.Background())
	w := &webSocket{
		Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary),
		ws:   ws, idle: idle, stop: stop,
	}
	ws.SetReadLimit(cmp.Or(size, defaultMaxMessage)) // NetConn removed the limit
	go w.ping(ctx)
	return w
}

// ping asks for a sign of life three times within the idle time. Each answer extends
// the deadline of the connection.
func (w *webSocket) ping(ctx context.Context) {
	tick := time.NewTicker(w.idle / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			bounded, cancel := context.WithTimeout(ctx, w.idle/3)
			if w.ws.Ping(bounded) == nil {
				w.SetReadDeadline(time.Now().Add(w.idle))
			}
			cancel()
		case <-ctx.Done():
			return
		}
	}
}

func (w *webSocket) Read(p []byte) (int, error) {
	w.SetReadDeadline(time.Now().Add(w.idle))
	w.exchange.moves(1)
	defer w.exchange.moves(-1)
	n, err := w.Conn.Read(p)
	if err != nil && err != io.EOF {
		w.broken.Store(true)
	}
	return n, endOf(err)
}

// status is the status of the last close frame. After a failed read, a close frame
// reaches the other end only if that broke the rules of the WebSocket (RFC 6455, section
// 7.4.1): any other failure has ended the connection, or was answered with a close frame.
func (w *webSocket) status(otherwise websocket.StatusCode) websocket.StatusCode {
	if w.broken.Load() {
		return websocket.StatusProtocolError
	}
	return otherwise
}

// endOf returns the error of a stream for that of a WebSocket that ended. A close frame
// without a status, as of a web page that calls close(), is an orderly end like one with a
// normal status. After any other, and without a close frame, the stream broke off: the
// other end takes no answer either (RFC 6455, sections 5.5.1 and 7.1.5). The status decides,
// whatever the reason: websocket answers one that is not UTF-8 like any other.
func endOf(err error) error {
	switch status := websocket.CloseStatus(err); {
	case status == websocket.StatusNoStatusRcvd:
		return io.EOF
	case status >= 0:
		return fmt.Errorf("mslhttp: the websocket broke off: %w: %w", io.ErrUnexpectedEOF, err)
	case err != io.EOF && errors.Is(err, io.EOF):
		return fmt.Errorf("mslhttp: the websocket broke off: %w: %v", io.ErrUnexpectedEOF, err)
	}
	return err
}

func (w *webSocket) Write(p []byte) (int, error) {
	w.SetWriteDeadline(time.Now().Add(w.idle))
	w.exchange.moves(1)
	defer w.exchange.moves(-1)
	return w.Conn.Write(p)
}

// Proven records that the sender of a message proved its identity.
func (w *webSocket) Proven() { w.exchange.prove() }

// Close ends the connection in an orderly way. A write under way is given up, and a read
// under way is left a second to see the peer close, too: canceling a read ends the TCP
// connection, so the peer would get no close frame.
func (w *webSocket) Close() error {
	defer w.stop()
	w.SetWriteDeadline(time.Now())
	defer time.AfterFunc(time.Second, func() { w.SetReadDeadline(time.Now()) }).Stop()
	err := w.ws.Close(w.status(websocket.StatusNormalClosure), "")
	w.Conn.Close() // releases what is left
	return err
}
