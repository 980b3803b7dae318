package mslhttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

const defaultHandshake = 10 * time.Second

// A TLSServer makes TLS connections of those that a listener accepts. It speaks TLS
// 1.2 and 1.3, and HTTP/1.1 above it.
type TLSServer struct {
	// Certificates are ours. A client that names a server gets one that has the
	// name; to one that names another it is unrecognized_name, and costs no
	// operation of a private key. A client that names none gets the first.
	Certificates []TLSCertificate

	ClientCAs *x509.CertPool // who may vouch for clients, which must have a certificate then; nil asks for none
	// CheckClient has a further word on a chain that leads from a client's certificate to
	// one of ClientCAs, at each handshake, also of a session that is resumed. An
	// [entityauth.ErrRevoked] is the alert certificate_revoked, another error
	// certificate_unknown. Nil accepts all. It must be quick.
	CheckClient func(chain []*x509.Certificate) error
	MinVersion  uint16            // zero means TLS 1.2, which is the oldest
	Patience    time.Duration     // for a handshake; zero means 10 seconds
	Alerts      *tlsalert.Counter // counts alerts; nil counts none
	Report      func(TLSEvent)    // is told of each failure and warning; nil tells nobody. It must not block
}

// Listen checks the configuration, and returns a listener whose connections are each
// a [*TLSConn]. Give them their context by [TLSContext].
func (s *TLSServer) Listen(l net.Listener) (net.Listener, error) {
	if len(s.Certificates) == 0 {
		return nil, errors.New("mslhttp: TLS server without a certificate")
	}
	least, err := leastVersion(s.MinVersion)
	if err != nil {
		return nil, err
	}
	t := &tlsListener{Listener: l, rules: newRules(s.Patience, s.Alerts, s.Report)}
	for _, c := range s.Certificates {
		id, err := c.load(x509.ExtKeyUsageServerAuth, least)
		if err != nil {
			return nil, err
		}
		t.identities = append(t.identities, id)
	}
	t.base = &tls.Config{MinVersion: least, NextProtos: []string{"http/1.1"}, GetConfigForClient: t.configure}
	if s.ClientCAs != nil {
		t.base.ClientAuth, t.base.ClientCAs = tls.RequireAndVerifyClientCert, s.ClientCAs
		t.revoked = s.CheckClient
	}
	return t, nil
}

// TLSContext is for http.Server.ConnContext: the context of a connection's requests
// ends when the connection fails, and [context.Cause] tells why. What was going on
// in them goes no further.
func TLSContext(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*TLSConn)
	if !ok {
		return ctx
	}
	ctx, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(conn.ctx, func() { cancel(context.Cause(conn.ctx)) })
	return ctx
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
	return &tlsRules{patience: orDefault(patience, defaultHandshake), alerts: alerts, report: report}
}

type tlsListener struct {
	net.Listener
	rules      *tlsRules
	base       *tls.Config
	identities []*identity
	deny       denyList
	revoked    func([]*x509.Certificate) error // or nil
}

// Accept returns a *TLSConn, before its handshake.
func (l *tlsListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := newTLSConn(raw, l.rules, true)
	c.tls = tls.Server(c.wire, l.base)
	return c, nil
}

// configure makes the configuration for one client.
func (l *tlsListener) configure(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	wire, ok := hello.Conn.(*tlsWire)
	if !ok {
		return nil, errors.New("mslhttp: TLS handshake on a connection of somebody else")
	}
	wire.extended.Store(len(hello.Extensions) > 0)
	session := &ticketed{base: l.base, deny: &l.deny}
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
		config.MaxVersion = 0 // crypto/tls sends unrecognized_name for want of a certificate
	}
	return config, nil
}

// named finds the certificates with a name.
func (l *tlsListener) named(name string) []*identity {
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
