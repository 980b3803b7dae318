package mslhttp

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

const defaultHandshake = 10 * time.Second

// A TLSServer turns the connections that a listener accepts into TLS connections. It
// speaks TLS 1.2 and 1.3, and over them HTTP/1.1 and optionally HTTP/2.
type TLSServer struct {
	// Certificates are those of the server. A client that requests a server name gets a
	// certificate with that name. If there is none, it gets the alert unrecognized_name,
	// without a private-key operation. A client that requests no name gets the first
	// certificate.
	Certificates []TLSCertificate

	ClientCAs *x509.CertPool // issuers of client certificates, which are then required; nil asks for none
	// CheckClient may refuse a chain from a client's certificate to one of ClientCAs. It
	// is called in each handshake, even if a session is resumed. The client gets the
	// alert certificate_revoked for an [entityauth.ErrRevoked], and certificate_unknown
	// for any other error. Nil accepts all. It must be fast.
	CheckClient func(chain []*x509.Certificate) error
	MinVersion  uint16            // zero means TLS 1.2, the oldest supported
	HTTP2       bool              // clients may choose HTTP/2; the http.Server needs [AllowHTTP2]
	Patience    time.Duration     // for a handshake; zero means 10 seconds
	Alerts      *tlsalert.Counter // of alerts; nil counts none
	Report      func(TLSEvent)    // unless nil, called for each failure and warning; it must not block
}

// Listen checks the configuration, and returns a listener. Each of its connections is a
// [*TLSConn], or with HTTP2 contains one. Give them their context with [TLSContext]. The
// listener has a method Renew(*TLSServer) error: connections accepted after it get the
// other server's certificates, client CAs and check, versions and protocols. If it fails,
// nothing changes.
func (s *TLSServer) Listen(l net.Listener) (net.Listener, error) {
	t := &tlsListener{Listener: l, rules: newRules(s.Patience, s.Alerts, s.Report)}
	if err := t.Renew(s); err != nil {
		return nil, err
	}
	return t, nil
}

// Check returns the error with which Listen and Renew would refuse the configuration.
func (s *TLSServer) Check() error {
	_, err := s.setup(nil)
	return err
}

func (s *TLSServer) setup(deny *denyList) (*tlsSetup, error) {
	if len(s.Certificates) == 0 {
		return nil, errors.New("mslhttp: TLS server without a certificate")
	}
	least, err := leastVersion(s.MinVersion)
	if err != nil {
		return nil, err
	}
	t := &tlsSetup{deny: deny}
	for _, c := range s.Certificates {
		id, err := c.load(x509.ExtKeyUsageServerAuth, least)
		if err != nil {
			return nil, err
		}
		t.identities = append(t.identities, id)
	}
	t.base = &tls.Config{MinVersion: least, NextProtos: protocols(s.HTTP2), GetConfigForClient: t.configure}
	if s.ClientCAs != nil {
		t.base.ClientAuth, t.base.ClientCAs = tls.RequireAndVerifyClientCert, s.ClientCAs
		t.revoked = s.CheckClient
	}
	return t, nil
}

// TLSContext is for http.Server.ConnContext: the context of a connection's requests
// ends when the connection fails, so that work on them stops. [context.Cause] returns
// the reason.
func TLSContext(ctx context.Context, c net.Conn) context.Context {
	conn := tlsConnOf(c)
	if conn == nil {
		return ctx
	}
	ctx, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(conn.ctx, func() { cancel(context.Cause(conn.ctx)) })
	return context.WithValue(ctx, tlsKey{}, conn)
}

func leastVersion(v uint16) (uint16, error) {
	switch v {
	case 0, tls.VersionTLS12:
		return tls.VersionTLS12, nil
	case tls.VersionTLS13:
		return v, nil
	}
	return 0, fmt.Errorf("mslhttp: minimum version %s of TLS: TLS 1.2 and TLS 1.3 are supported", tls.VersionName(v))
}

func newRules(patience time.Duration, alerts *tlsalert.Counter, report func(TLSEvent)) *tlsRules {
	if alerts == nil {
		alerts = &tlsalert.Counter{}
	}
	return &tlsRules{patience: cmp.Or(patience, defaultHandshake), alerts: alerts, report: report}
}

type tlsListener struct {
	net.Listener
	rules *tlsRules
	deny  denyList
	setup atomic.Pointer[tlsSetup] // for newly accepted connections
}

// A tlsSetup is the configuration shared by the connections of one period.
type tlsSetup struct {
	base       *tls.Config
	identities []*identity
	deny       *denyList
	revoked    func([]*x509.Certificate) error // or nil
}

// Renew adopts the settings of another server.
func (l *tlsListener) Renew(s *TLSServer) error {
	setup, err := s.setup(&l.deny)
	if err == nil {
		l.setup.Store(setup)
	}
	return err
}

// Accept returns a *TLSConn, before its handshake.
func (l *tlsListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c, base := newTLSConn(raw, l.rules, true), l.setup.Load().base
	c.tls = tls.Server(c.wire, base)
	if slices.Contains(base.NextProtos, protocolHTTP2) {
		return unversioned{c, c}, nil
	}
	return c, nil
}

// configure returns the configuration for one client.
func (l *tlsSetup) configure(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	wire, ok := hello.Conn.(*tlsWire)
	if !ok {
		return nil, errors.New("mslhttp: TLS handshake on a connection of somebody else")
	}
	wire.extended.Store(len(hello.Extensions) > 0)
	session := &ticketed{base: l.base, deny: l.deny}
	wire.conn.forget = session.forget
	config := l.base.Clone()
	config.GetConfigForClient = nil
	if l.revoked != nil {
		(&clientCheck{revoked: l.revoked, wire: wire, session: session, logged: config.KeyLogWriter}).watch(config)
	}
	config.WrapSession, config.UnwrapSession = session.wrap, session.unwrap
	config.MaxVersion = tls.VersionTLS12
	for _, id := range l.named(hello.ServerName) {
		config.Certificates = append(config.Certificates, id.of(wire.conn))
		config.MaxVersion = max(config.MaxVersion, id.newest)
	}
	if len(config.Certificates) == 0 {
		wire.conn.stranger = hello.ServerName
		config.MaxVersion = 0 // crypto/tls sends unrecognized_name if there is no certificate
	}
	return config, nil
}

// named returns the certificates with that name, or all if the name is empty.
func (l *tlsSetup) named(name string) []*identity {
	if name == "" {
		return l.identities
	}
	var found []*identity
	for _, id := range l.identities {
		if id.Leaf.VerifyHostname(name) == nil {
			found = append(found, id)
		}
	}
	return found
}
