package mslhttp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The protocols negotiated in a TLS handshake (RFC 7301, RFC 9113 section 3.2).
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
	http2Streams       = 100      // concurrent on one connection: the minimum recommended by RFC 9113 section 6.5.2
	http2StreamBuffer  = 64 << 10 // unread bytes of a request
	http2Buffer        = 2 << 20  // of all requests on a connection, so that a few slow ones do not stop others
	http2PingAfter     = 30 * time.Second
	http2PingPatience  = 15 * time.Second
	http2WritePatience = time.Minute // for a peer that takes no byte of any stream
	http2Dials         = 6           // connections made for one request, of which net/http may make two at a time
)

// AllowHTTP2 makes an HTTP server on the connections of a [TLSServer] with HTTP2 speak
// HTTP/2. Call it once the server has its handler, whose requests get their TLS state
// from [TLSContext]. net/http supports HTTP/2 only on its own TLS connections; on others
// only without TLS, which is how a [TLSConn] looks from above. So do not call it for a
// server that listens without TLS.
//
// Each connection has at most a hundred concurrent streams, which count for the source of
// the connection ([Connections]). net/http disconnects a client that opens streams and
// resets them immediately (CVE-2023-44487).
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

// An unversioned connection hides its TLS, so that net/http detects the HTTP version from
// what the client sends.
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

// agreed adds the TLS state to requests, and refuses those in an HTTP version other than
// the negotiated one.
func agreed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _ := r.Context().Value(tlsKey{}).(*TLSConn)
		if conn == nil {
			TurnAway(r.Context(), BadRequest, SourceOf(r.RemoteAddr))
			http.Error(w, "this version of HTTP needs TLS", http.StatusHTTPVersionNotSupported)
			return
		}
		state := conn.ConnectionState()
		if (r.ProtoMajor == 2) != (state.NegotiatedProtocol == protocolHTTP2) {
			TurnAway(r.Context(), BadRequest, SourceOf(r.RemoteAddr))
			http.Error(w, "the TLS handshake negotiated a different version of HTTP", http.StatusHTTPVersionNotSupported)
			return
		}
		if r.TLS == nil {
			r.TLS = &state
		}
		next.ServeHTTP(w, r)
	})
}

// RoundTripper is Transport, with HTTP/2 if HTTP2 is set and the server supports it.
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

// An HTTP2Transport is an http.RoundTripper for HTTP/2 over TLS. It uses HTTP1 for
// servers that do not support HTTP/2, and for URLs without TLS. [TLSClient.RoundTripper]
// makes it.
type HTTP2Transport struct {
	HTTP1 *http.Transport
	http2 *http.Transport

	mu      sync.Mutex
	without map[string]bool // addresses of servers without HTTP/2
}

var (
	errNoHTTP2  = errors.New("mslhttp: the server does not speak HTTP/2")
	errGoneAway = errors.New("mslhttp: the server ended one connection after the other before it took the request: try again later")
)

// A dialsKey is the key of the number of connections made for a request, in its context.
type dialsKey struct{}

// dial connects to a server with HTTP/2. net/http asks for another connection, without a
// pause or an end, as long as servers end each before it carries the request (GOAWAY, RFC
// 9113 section 6.8).
func (t *HTTP2Transport) dial(ctx context.Context, d *tlsDialer, network, addr string) (net.Conn, error) {
	if made, ok := ctx.Value(dialsKey{}).(*atomic.Int32); ok && made.Add(1) > http2Dials {
		return nil, errGoneAway
	}
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
	first, body := r.WithContext(context.WithValue(r.Context(), dialsKey{}, &atomic.Int32{})), &lentBody{}
	if r.Body != nil && r.Body != http.NoBody {
		body = &lentBody{ReadCloser: r.Body}
		first.Body = body
	}
	answer, err := t.http2.RoundTrip(first)
	if errors.Is(err, errNoHTTP2) { // no byte of the body was read
		t.mu.Lock()
		t.without[r.URL.Host] = true
		t.mu.Unlock()
		return t.HTTP1.RoundTrip(r)
	}
	if failed := body.give(); err != nil {
		return nil, errors.Join(err, failed)
	}
	answer.Request = r
	return answer, nil
}

// A lentBody is the body of a request that may have to be sent by another transport. A
// transport closes the body of every request, even of one that it could not send; until
// give is called, the lentBody only remembers that.
type lentBody struct {
	io.ReadCloser

	mu            sync.Mutex
	given, closed bool
}

// Close closes the body, or makes give do so.
func (b *lentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if !b.given {
		return nil
	}
	return b.ReadCloser.Close()
}

// give closes the body if that was requested, and lets the transport close it.
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

// CloseIdleConnections closes the unused connections.
func (t *HTTP2Transport) CloseIdleConnections() {
	t.http2.CloseIdleConnections()
	t.HTTP1.CloseIdleConnections()
}
