package mslhttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// A TLSClient makes TLS connections to servers. The zero value is ready for use.
type TLSClient struct {
	Roots       *x509.CertPool  // trusted to vouch for servers; nil means the system's roots
	Certificate *TLSCertificate // of the client, for a server that asks for one; nil means none
	MinVersion  uint16          // zero means TLS 1.2, the oldest supported
	HTTP2       bool            // ask for HTTP/2, see [TLSClient.RoundTripper]
	ServerName  string          // required in the server's certificate; empty means the host of the address

	Patience time.Duration     // for a handshake; zero means 10 seconds
	Alerts   *tlsalert.Counter // of alerts; nil counts none
	Report   func(TLSEvent)    // unless nil, called for each failure and warning; it must not block
}

// Transport checks the configuration, and returns a transport for an http.Client. Each
// of its connections is a [*TLSConn]. It speaks HTTP/1.1, and does not use a proxy.
func (c *TLSClient) Transport() (*http.Transport, error) {
	d, err := c.dialer()
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		DialTLSContext:        d.dial,
		MaxIdleConns:          100,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
	}, nil
}

// Dialer checks the configuration, and returns a function that connects to an address,
// HOST:PORT, and performs the handshake. Each of its connections is a [*TLSConn].
func (c *TLSClient) Dialer() (dial func(ctx context.Context, network, address string) (net.Conn, error), err error) {
	d, err := c.dialer()
	if err != nil {
		return nil, err
	}
	return d.dial, nil
}

type tlsDialer struct {
	rules    *tlsRules
	base     *tls.Config
	own      *identity
	sessions tls.ClientSessionCache
}

func (c *TLSClient) dialer() (*tlsDialer, error) {
	least, err := leastVersion(c.MinVersion)
	if err != nil {
		return nil, err
	}
	d := &tlsDialer{
		rules: newRules(c.Patience, c.Alerts, c.Report), sessions: tls.NewLRUClientSessionCache(clientSessions),
		base: &tls.Config{RootCAs: c.Roots, ServerName: c.ServerName, MinVersion: least, NextProtos: []string{protocolHTTP1}, VerifyConnection: checkStaple},
	}
	if c.Certificate != nil {
		if d.own, err = c.Certificate.load(x509.ExtKeyUsageClientAuth, least); err != nil {
			return nil, err
		}
		d.base.MaxVersion = d.own.newest
	}
	return d, nil
}

func (d *tlsDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("mslhttp: %w", err)
	}
	raw, err := (&net.Dialer{Timeout: 30 * time.Second}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return d.over(ctx, raw, host)
}

// over performs the handshake with the server called host.
func (d *tlsDialer) over(ctx context.Context, raw net.Conn, host string) (net.Conn, error) {
	c := newTLSConn(raw, d.rules, false)
	session := &cached{shared: d.sessions}
	c.forget = session.forget
	config := d.base.Clone()
	config.ClientSessionCache = session
	if config.ServerName == "" {
		config.ServerName = host
	}
	if d.own != nil {
		config.Certificates = []tls.Certificate{d.own.of(c)}
	}
	c.tls = tls.Client(c.wire, config)
	if err := c.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// checkStaple refuses a server whose own OCSP response reports it revoked. A server that
// staples none is accepted, and so is a good response that has expired: it proves
// nothing.
func checkStaple(cs tls.ConnectionState) error {
	if len(cs.OCSPResponse) == 0 || len(cs.VerifiedChains) == 0 {
		return nil
	}
	chain := cs.VerifiedChains[0]
	issuer := chain[min(1, len(chain)-1)]
	if _, err := judgeOCSP(cs.OCSPResponse, chain[0], issuer); err != nil {
		// crypto/tls cannot send bad_certificate_status_response.
		return &tlsalert.Error{Alert: tlsalert.BadCertificate, Origin: tlsalert.Sent, Err: err}
	}
	return nil
}
