package mslhttp

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// goClient is a client of the standard library, which has no checks of its own certificate.
func goClient(t *testing.T, a *authority, version uint16, own *TLSCertificate) *http.Client {
	config := &tls.Config{RootCAs: a.pool(), ServerName: "server", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	if own != nil {
		config.Certificates = []tls.Certificate{{Certificate: own.Chain, PrivateKey: own.Key}}
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// TestTLSClientCertificate has clients without a certificate that the server accepts.
func TestTLSClientCertificate(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	made := func(from *authority, change func(*x509.Certificate)) *TLSCertificate {
		c := from.issue("client", keystore.ECDSAP256, change)
		return &c
	}
	var seen events
	addr := start(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, ClientCAs: a.pool(), Report: seen.note})
	for _, c := range []struct {
		name    string
		version uint16
		own     *TLSCertificate
		want    tlsalert.Alert
		advice  string
	}{
		{"none", tls.VersionTLS12, nil, tlsalert.HandshakeFailure, "give the client a certificate, or make client-ca empty"},
		{"none", tls.VersionTLS13, nil, tlsalert.CertificateRequired, "give the client a certificate, or make client-ca empty"},
		{"of another authority", tls.VersionTLS12, made(other, nil), tlsalert.UnknownCA, "add the root"},
		{"of another authority", tls.VersionTLS13, made(other, nil), tlsalert.UnknownCA, "add the root"},
		{"expired", tls.VersionTLS12, made(a, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), tlsalert.CertificateExpired, "renew"},
		{"expired", tls.VersionTLS13, made(a, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), tlsalert.CertificateExpired, "renew"},
		{"not valid yet", tls.VersionTLS13, made(a, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), tlsalert.CertificateExpired, "check the clock"},
		{"of a server", tls.VersionTLS13, made(a, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), tlsalert.BadCertificate, "check the certificate"},
	} {
		if got, err := fetch(goClient(t, a, c.version, c.own), addr); err == nil {
			t.Errorf("%s, %s: served %q", c.name, tls.VersionName(c.version), got)
		}
		all := seen.await(t)
		last := all[len(all)-1]
		if last.Alert != c.want || last.Origin != tlsalert.Sent || !strings.Contains(last.Err.Error(), c.advice) {
			t.Errorf("%s, %s: %v %v: %v", c.name, tls.VersionName(c.version), last.Origin, last.Alert, last.Err)
		}
		seen.forget()
	}
}

func (e *events) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = nil
}

// TestTLSRenew replaces the certificate and the client CAs of a listener. Connections go on;
// new ones follow the new settings, even those that would resume a session.
func TestTLSRenew(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	own, client := a.issue("server", keystore.ECDSAP256, nil), a.issue("client", keystore.ECDSAP256, nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		raw, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := (&TLSServer{Certificates: []TLSCertificate{own}, ClientCAs: a.pool()}).Listen(raw)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{ConnContext: TLSContext, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS.DidResume) })}
		go server.Serve(l)
		held, fresh := goClient(t, a, version, &client), goClient(t, a, version, &client)
		fresh.Transport.(*http.Transport).DisableKeepAlives = true
		for _, step := range []struct {
			name string
			s    *TLSServer // nil renews nothing
			want string     // of a new connection; empty means an error
		}{
			{"first", nil, "false"}, {"again", nil, "true"},
			{"other client CA", &TLSServer{Certificates: []TLSCertificate{own}, ClientCAs: other.pool()}, ""},
			{"refused settings", &TLSServer{}, ""},
			{"own client CA", &TLSServer{Certificates: []TLSCertificate{own}, ClientCAs: a.pool()}, "false"},
			{"no client CA", &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}}, "false"},
		} {
			if step.s != nil {
				if err := l.(*tlsListener).Renew(step.s); (err != nil) != (len(step.s.Certificates) == 0) {
					t.Errorf("%s: %v", step.name, err)
				}
			}
			if got, err := fetch(held, raw.Addr().String()); got != "false" || err != nil {
				t.Errorf("%s, %s, connected: %q, %v", tls.VersionName(version), step.name, got, err)
			}
			if got, err := fetch(fresh, raw.Addr().String()); got != step.want || (err == nil) != (step.want != "") {
				t.Errorf("%s, %s: %q, %v", tls.VersionName(version), step.name, got, err)
			}
		}
		server.Close()
	}
}
