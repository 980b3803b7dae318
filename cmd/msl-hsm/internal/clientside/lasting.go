package clientside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// A lasting transport keeps a connection to the server, and replaces one that broke.
type lasting struct {
	config *config.Config
	dialer *mslhttp.TLSClient // nil without TLS
	limits msl.Limits

	mu     sync.Mutex
	conn   *noticed
	stream *msl.StreamTransport
}

// newLasting returns a transport for a URL with persistent connections.
func newLasting(c *config.Config, store keystore.Store) (*lasting, error) {
	l := &lasting{config: c, limits: messageLimits(c.Client.Limits)}
	u, err := url.Parse(c.Client.URL)
	if err != nil || u.Scheme == "tcp" || u.Scheme == "ws" {
		return l, err
	}
	l.dialer, err = keys.TLSClient("client.tls", &c.Client.TLS, store)
	return l, err
}

func messageLimits(l config.ClientLimits) msl.Limits {
	return msl.Limits{Header: l.Header, Chunk: l.Chunk, Inflate: l.Inflate, Tokens: l.Tokens, Depth: l.Depth}
}

func (l *lasting) dial(ctx context.Context) (net.Conn, error) {
	u, err := url.Parse(l.config.Client.URL)
	if err != nil {
		return nil, err
	}
	conn, err := l.connect(ctx, u)
	var status *mslhttp.StatusError
	var alert *tlsalert.Error
	if text := otherProtocol(err); text != "" {
		return nil, exit.WithCode(exit.OfKind(err, "%s", text), exit.NoAnswer)
	}
	if request := (*url.Error)(nil); errors.As(err, &request) {
		err = request.Err // the text around it comes from the WebSocket library
	}
	switch {
	case errors.As(err, &alert), exit.Unreached(err):
		return nil, exit.WithCode(err, exit.NoAnswer) // Unread explains it
	case errors.As(err, &status) && status.WantsTLS:
		return nil, exit.WithCode(errors.New("that port has TLS: write wss:// in the URL"), exit.NoAnswer)
	case errors.As(err, &status):
		return nil, exit.WithCode(fmt.Errorf("there is no WebSocket at %s: the server answered HTTP %d %s; check the path, and server.stream, server.peer or server.push there",
			exit.Printable(l.config.Client.URL), status.Status, http.StatusText(status.Status)), exit.NoAnswer)
	case exit.IsAny(err, syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF):
		return nil, exit.WithCode(exit.OfKind(err, closedEarly), exit.NoAnswer)
	case err != nil:
		return nil, exit.WithCode(fmt.Errorf("the server cannot be reached: check that it runs, and the URL: %w", err), exit.NoAnswer)
	}
	return conn, nil
}

func (l *lasting) connect(ctx context.Context, u *url.URL) (net.Conn, error) {
	switch {
	case u.Scheme == "tcp":
		return new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	case u.Scheme == "tls":
		dial, err := l.dialer.Dialer()
		if err != nil {
			return nil, exit.Usagef("client.tls: %w", err)
		}
		return dial(ctx, "tcp", u.Host)
	}
	d := &mslhttp.WebSocketDialer{}
	if l.dialer != nil {
		web, err := l.dialer.Transport()
		if err != nil {
			return nil, exit.Usagef("client.tls: %w", err)
		}
		d.Client = &http.Client{Transport: web}
	}
	return d.Dial(ctx, l.config.Client.URL)
}

// open returns the connection, making one if none works.
func (l *lasting) open(ctx context.Context) (*noticed, *msl.StreamTransport, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil && !l.conn.broken.Load() {
		return l.conn, l.stream, nil
	}
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	l.conn = &noticed{Conn: conn, raw: l.dialer == nil}
	l.stream = &msl.StreamTransport{RW: l.conn, Limits: l.limits}
	return l.conn, l.stream, nil
}

// RoundTrip sends a message on the connection.
func (l *lasting) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	_, stream, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	return stream.RoundTrip(ctx, write)
}

// Close ends the connection.
func (l *lasting) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil || l.conn.broken.Load() {
		return nil
	}
	return l.conn.Close()
}

// A noticed connection is one whose failure is noticed, such as an answer in another protocol.
type noticed struct {
	net.Conn
	raw    bool // without TLS
	begun  bool // something was read
	broken atomic.Bool
}

func (n *noticed) Read(p []byte) (int, error) {
	c, err := n.Conn.Read(p)
	if !n.begun && c > 0 {
		n.begun = true
		if there := protocolOf(p[:c], n.raw); there != nil {
			c, err = 0, there
		}
	}
	if err != nil {
		n.broken.Store(true)
	}
	return c, err
}

// A spoken error names the protocol that a server speaks instead of MSL.
type spoken struct{ text string }

// Error says what to write in the URL.
func (s *spoken) Error() string { return s.text }

// protocolOf recognizes the alert of a TLS server, and an answer in HTTP. No message begins like these.
func protocolOf(begin []byte, raw bool) error {
	switch {
	case raw && bytes.HasPrefix(begin, []byte{0x15, 3}):
		return &spoken{"that port has TLS: write tls:// in the URL instead of tcp://"}
	case bytes.HasPrefix(begin, []byte("HTTP/")):
		return &spoken{"that port speaks HTTP: write http:// or ws:// in the URL, or with TLS https:// or wss://, or name the port of server.stream.listen"}
	}
	return nil
}

// Close ends the connection, unless it has ended.
func (n *noticed) Close() error {
	if n.broken.Swap(true) {
		n.Conn.SetDeadline(time.Now()) // a closing handshake would wait
	}
	return n.Conn.Close()
}
