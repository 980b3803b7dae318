package mslhttp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// The protocols that are agreed on in a TLS handshake (RFC 7301, RFC 9113 section 3.2).
const (
	protocolHTTP1 = "http/1.1"
	protocolHTTP2 = "h2"
)

func protocols(http2 bool) []string {
	if http2 {
		return []string{protocolHTTP2, protocolHTTP1}
	}
	return []string{protocolHTTP1}
}

const (
	http2Streams       = 100      // at a time on one connection: what RFC 9113 section 6.5.2 recommends at least
	http2StreamBuffer  = 64 << 10 // bytes of a request that nobody has read yet
	http2Buffer        = 2 << 20  // and of all requests on a connection, so that a few slow ones stop no other
	http2PingAfter     = 30 * time.Second
	http2PingPatience  = 15 * time.Second
	http2WritePatience = time.Minute // for a peer that takes no byte of any stream
)

// AllowHTTP2 makes an HTTP server that listens on the connections of a [TLSServer] with
// HTTP2 speak it. Call it when the server has its handler, whose requests get their TLS
// state from [TLSContext]. net/http knows HTTP/2 on its own TLS connections only, and on
// others as HTTP/2 without TLS, which is what it is seen from above a [TLSConn]. So call it
// for no server that listens without TLS.
//
// Each connection has at most a hundred streams at a time, which count for the source of
// the connection ([Connections]). A client that opens streams and resets them at once
// (CVE-2023-44487) is disconnected by net/http.
func AllowHTTP2(s *http.Server) {
	s.Handler = agreed(s.Handler)
	s.Protocols = &http.Protocols{}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: http2Streams, MaxReceiveBufferPerStream: http2StreamBuffer, MaxReceiveBufferPerConnection: http2Buffer,
		SendPingTimeout: http2PingAfter, PingTimeout: http2PingPatience, WriteByteTimeout: http2WritePatience,
	}
}

// An unversioned connection is one whose version of HTTP net/http finds out by what the
// client sends: it does so only where it sees no TLS.
type unversioned struct {
	net.Conn
	tls *TLSConn
}

// CloseWrite sends close_notify.
func (u unversioned) CloseWrite() error { return u.tls.CloseWrite() }

func tlsConnOf(c net.Conn) *TLSConn {
	switch c := c.(type) {
	case *TLSConn:
		return c
	case unversioned:
		return c.tls
	}
	return nil
}

// A tlsKey is the key of the [TLSConn] in the context of its requests.
type tlsKey struct{}

// agreed gives requests their TLS state, and refuses those in another version of HTTP than
// the one that the handshake agreed on.
func agreed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _ := r.Context().Value(tlsKey{}).(*TLSConn)
		if conn == nil {
			http.Error(w, "this version of HTTP needs TLS", http.StatusHTTPVersionNotSupported)
			return
		}
		state := conn.ConnectionState()
		if (r.ProtoMajor == 2) != (state.NegotiatedProtocol == protocolHTTP2) {
			http.Error(w, "the TLS handshake negotiated a different version of HTTP", http.StatusHTTPVersionNotSupported)
			return
		}
		if r.TLS == nil {
			r.TLS = &state
		}
		next.ServeHTTP(w, r)
	})
}

// RoundTripper is Transport, with HTTP/2 where HTTP2 is set and the server agrees to it.
func (c *TLSClient) RoundTripper() (http.RoundTripper, error) {
	plain, err := c.Transport()
	if err != nil || !c.HTTP2 {
		return plain, err
	}
	d, err := c.dialer()
	if err != nil {
		return nil, err
	}
	d.base.NextProtos = protocols(true)
	t := &HTTP2Transport{HTTP1: plain, without: map[string]bool{}}
	t.http2 = &http.Transport{
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return t.dial(ctx, d, network, addr)
		},
		IdleConnTimeout: 90 * time.Second,
		Protocols:       &http.Protocols{},
		HTTP2:           &http.HTTP2Config{SendPingTimeout: http2PingAfter, PingTimeout: http2PingPatience},
	}
	t.http2.Protocols.SetUnencryptedHTTP2(true) // above a TLSConn, see AllowHTTP2
	return t, nil
}

// An HTTP2Transport is an http.RoundTripper for HTTP/2 over TLS. It uses HTTP1 for servers
// that do not agree to HTTP/2, and for URLs without TLS. [TLSClient.RoundTripper] makes it.
type HTTP2Transport struct {
	HTTP1 *http.Transport
	http2 *http.Transport

	mu      sync.Mutex
	without map[string]bool // addresses of servers without HTTP/2
}

var errNoHTTP2 = errors.New("mslhttp: the server does not speak HTTP/2")

// dial connects to a server with HTTP/2.
func (t *HTTP2Transport) dial(ctx context.Context, d *tlsDialer, network, addr string) (net.Conn, error) {
	conn, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if conn.(*TLSConn).ConnectionState().NegotiatedProtocol == protocolHTTP2 {
		return conn, nil
	}
	return nil, errors.Join(errNoHTTP2, conn.Close())
}

// RoundTrip implements http.RoundTripper.
func (t *HTTP2Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" || t.lacks(r.URL.Host) {
		return t.HTTP1.RoundTrip(r)
	}
	first, body := r, &lentBody{}
	if r.Body != nil && r.Body != http.NoBody {
		first = r.Clone(r.Context())
		body = &lentBody{ReadCloser: r.Body}
		first.Body = body
	}
	answer, err := t.http2.RoundTrip(first)
	if errors.Is(err, errNoHTTP2) { // not a byte of the body was read
		t.mu.Lock()
		t.without[r.URL.Host] = true
		t.mu.Unlock()
		return t.HTTP1.RoundTrip(r)
	}
	if failed := body.give(); err != nil {
		return nil, errors.Join(err, failed)
	}
	return answer, nil
}

// A lentBody is the body of a request that may have to be sent by another transport. A
// transport closes the body of every request, also of one that it could not send: before
// it is given to the transport for good, it only remembers that.
type lentBody struct {
	io.ReadCloser

	mu            sync.Mutex
	given, closed bool
}

// Close closes the body, or has give do so.
func (b *lentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if !b.given {
		return nil
	}
	return b.ReadCloser.Close()
}

// give closes the body if that was asked for, and lets the transport close it.
func (b *lentBody) give() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.given = true
	if !b.closed {
		return nil
	}
	return b.ReadCloser.Close()
}

func (t *HTTP2Transport) lacks(host string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.without[host]
}

// CloseIdleConnections closes the connections that nobody uses.
func (t *HTTP2Transport) CloseIdleConnections() {
	t.http2.CloseIdleConnections()
	t.HTTP1.CloseIdleConnections()
}
