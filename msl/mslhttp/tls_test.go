package mslhttp

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// TestTLSKeys uses every kind of signing key, in the server and in the client.
func TestTLSKeys(t *testing.T) {
	a := newAuthority(t)
	for _, test := range []struct {
		algorithm keystore.Algorithm
		least     uint16
		want      string
	}{
		{keystore.ECDSAP256, 0, "TLS 1.3 false"},
		{keystore.ECDSAP384, tls.VersionTLS13, "TLS 1.3 false"},
		{keystore.RSASign2048, 0, "TLS 1.2 false"},
		{keystore.RSAPSS2048, tls.VersionTLS13, "TLS 1.3 false"},
		{keystore.RSAPSS3072, 0, "TLS 1.3 false"},
	} {
		own := a.issue("server", test.algorithm, nil)
		client := a.issue("client", test.algorithm, nil)
		addr := start(t, &TLSServer{Certificates: []TLSCertificate{own}, ClientCAs: a.pool(), MinVersion: test.least})
		if got, err := get(t, &TLSClient{Roots: a.pool(), Certificate: &client}, "server", addr); got != test.want || err != nil {
			t.Errorf("%v: got %q, error %v", test.algorithm, got, err)
		}
	}
}

// TestTLSNames picks the certificate by name, and the version by its key.
func TestTLSNames(t *testing.T) {
	a := newAuthority(t)
	var alerts tlsalert.Counter
	var seen events
	signed := 0
	counted := a.issue("old.example", keystore.RSASign2048, nil)
	counted.Key = countingKey{counted.Key, &signed}
	addr := start(t, &TLSServer{Alerts: &alerts, Report: seen.note, Certificates: []TLSCertificate{
		counted, a.issue("new.example", keystore.ECDSAP256, nil), a.issue("*.wild.example", keystore.ECDSAP256, nil)}})
	for name, want := range map[string]string{"old.example": "TLS 1.2 false", "new.example": "TLS 1.3 false", "x.wild.example": "TLS 1.3 false"} {
		if got, err := get(t, &TLSClient{Roots: a.pool()}, name, addr); got != want || err != nil {
			t.Errorf("%s: got %q, error %v", name, got, err)
		}
	}
	before := signed
	_, err := get(t, &TLSClient{Roots: a.pool()}, "other.example", addr)
	if alert, origin, ok := tlsalert.From(err); alert != tlsalert.UnrecognizedName || origin != tlsalert.Received || !ok {
		t.Errorf("unknown name: %v", err)
	}
	seen.await(t)
	if signed != before {
		t.Error("a private key signed for a name that we do not have")
	}
	if counts := alerts.Counts(); len(counts) != 1 || counts[0] != (tlsalert.Count{Alert: tlsalert.UnrecognizedName, Origin: tlsalert.Sent, Fatal: true, Times: 1}) {
		t.Errorf("counted %v", counts)
	}
}

// A countingKey counts its signatures. It hides that its key is from package keystore.
type countingKey struct {
	crypto.Signer
	n *int
}

func (k countingKey) Algorithm() keystore.Algorithm { return k.Signer.(keystore.Key).Algorithm() }
func (k countingKey) Close() error                  { return nil }
func (k countingKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	*k.n++
	return k.Signer.Sign(random, digest, opts)
}

// TestTLSConfiguration refuses configurations that could never work, and says what to
// do.
func TestTLSConfiguration(t *testing.T) {
	a := newAuthority(t)
	good := a.issue("server", keystore.ECDSAP256, nil)
	rsaKey := a.issue("server", keystore.RSASign2048, nil)
	for _, test := range []struct {
		want   string
		server TLSServer
	}{
		{"without a certificate", TLSServer{}},
		{"without a chain or without a key", TLSServer{Certificates: []TLSCertificate{{Key: good.Key}}}},
		{"x509: malformed", TLSServer{Certificates: []TLSCertificate{{Chain: [][]byte{[]byte("x")}, Key: good.Key}}}},
		{"name the key that it was made for", TLSServer{Certificates: []TLSCertificate{{Chain: good.Chain, Key: rsaKey.Key}}}},
		{"make an ecdsa-p256 or rsa2048-pss key, or let the minimum be TLS 1.2", TLSServer{Certificates: []TLSCertificate{rsaKey}, MinVersion: tls.VersionTLS13}},
		{"TLS 1.2 and TLS 1.3 are supported", TLSServer{Certificates: []TLSCertificate{good}, MinVersion: tls.VersionTLS11}},
		{"renew it", TLSServer{Certificates: []TLSCertificate{a.issue("s", keystore.ECDSAP256, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })}}},
		{"check the clock", TLSServer{Certificates: []TLSCertificate{a.issue("s", keystore.ECDSAP256, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })}}},
		{"no subject alternative name", TLSServer{Certificates: []TLSCertificate{a.issue("s", keystore.ECDSAP256, func(c *x509.Certificate) { c.DNSNames = nil })}}},
		{"does not allow this use", TLSServer{Certificates: []TLSCertificate{a.issue("s", keystore.ECDSAP256, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })}}},
		{"OCSP response", TLSServer{Certificates: []TLSCertificate{{Chain: good.Chain, Key: good.Key, OCSP: func() []byte { return []byte("x") }}}}},
	} {
		if _, err := test.server.Listen(nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("want %q, got %v", test.want, err)
		}
	}
	if _, err := (&TLSClient{Certificate: &rsaKey, MinVersion: tls.VersionTLS13}).Transport(); err == nil {
		t.Error("a client with a key that serves no TLS 1.3: no error")
	}
}

// TestTLSForeignKey uses every signature of a key that is not from package keystore.
func TestTLSForeignKey(t *testing.T) {
	a := newAuthority(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	addr := start(t, &TLSServer{Certificates: []TLSCertificate{a.certify(key, "server", nil)}})
	if got, err := get(t, &TLSClient{Roots: a.pool()}, "server", addr); got != "TLS 1.3 false" || err != nil {
		t.Errorf("got %q, error %v", got, err)
	}
}

func (a *authority) respond(c TLSCertificate, status int, next time.Time) []byte {
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		a.t.Fatal(err)
	}
	response, err := ocsp.CreateResponse(a.root, a.root, ocsp.Response{
		Status: status, SerialNumber: leaf.SerialNumber, ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next, RevokedAt: time.Now(),
	}, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return response
}

// TestTLSOCSP staples a response only if it is good, and asks for it each time.
func TestTLSOCSP(t *testing.T) {
	a := newAuthority(t)
	own := a.issue("server", keystore.ECDSAP256, nil)
	good := a.respond(own, ocsp.Good, time.Now().Add(time.Hour))
	other := a.issue("server", keystore.ECDSAP256, nil)
	var mu sync.Mutex
	response := good
	own.OCSP = func() []byte { mu.Lock(); defer mu.Unlock(); return response }
	addr := start(t, &TLSServer{Certificates: []TLSCertificate{own}})
	for _, test := range []struct {
		name     string
		response []byte
		stapled  bool
		next     string // step, if it is not
	}{
		{"good", good, true, ""},
		{"none", nil, false, "cannot be read: put a current response in its place"},
		{"expired", a.respond(own, ocsp.Good, time.Now().Add(-time.Minute)), false, ": put a current response in its place"},
		{"of another", a.respond(other, ocsp.Good, time.Now().Add(time.Hour)), false, ": put a current response in its place"},
		{"revoked", a.respond(own, ocsp.Revoked, time.Now().Add(time.Hour)), false, ": replace the certificate"},
		{"good again", good, true, ""},
	} {
		mu.Lock()
		response = test.response
		mu.Unlock()
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: a.pool(), ServerName: "server"})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(c.OCSPResponse()) > 0; got != test.stapled {
			t.Errorf("%s: stapled %v", test.name, got)
		}
		if err := own.CheckOCSP(); (err == nil) != test.stapled || err != nil && !strings.HasSuffix(err.Error(), test.next) {
			t.Errorf("%s: told %v", test.name, err)
		}
		c.Close()
	}
	own.OCSP = func() []byte { return []byte("junk") }
	if err := own.CheckOCSP(); err == nil || !strings.HasSuffix(err.Error(), `OCSP response for "CN=server": it is not one in DER or PEM: put a current response in its place`) {
		t.Errorf("junk: %v", err)
	}
	own.OCSP = func() []byte { return a.respond(own, ocsp.Revoked, time.Now().Add(time.Hour)) }
	if _, err := (&TLSServer{Certificates: []TLSCertificate{own}}).Listen(nil); err == nil || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("server with a revoked certificate: %v", err)
	}
}

// TestTLSRevokedServer is a client of a server that staples its own revocation.
func TestTLSRevokedServer(t *testing.T) {
	a := newAuthority(t)
	own := a.issue("server", keystore.ECDSAP256, nil)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{
		Certificate: own.Chain, PrivateKey: own.Key, OCSPStaple: a.respond(own, ocsp.Revoked, time.Now().Add(time.Hour))}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(l, nil)
	_, err = get(t, &TLSClient{Roots: a.pool()}, "server", l.Addr().String())
	if alert, origin, _ := tlsalert.From(err); alert != tlsalert.BadCertificate || origin != tlsalert.Sent || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("got %v", err)
	}
}

// TestTLSKeyFails distinguishes failures of the device from those of the peer.
func TestTLSKeyFails(t *testing.T) {
	a := newAuthority(t)
	own := a.issue("server", keystore.ECDSAP256, nil)
	own.Key = brokenKey{own.Key}
	var seen events
	addr := start(t, &TLSServer{Certificates: []TLSCertificate{own}, Report: seen.note})
	_, err := get(t, &TLSClient{Roots: a.pool()}, "server", addr)
	if alert, origin, _ := tlsalert.From(err); alert != tlsalert.InternalError || origin != tlsalert.Received {
		t.Errorf("client: %v", err)
	}
	fatal := seen.await(t)
	if len(fatal) != 1 || !errors.Is(fatal[0].Err, keystore.ErrUnavailable) || Classify(fatal[0].Err).Name != "tls_key" {
		t.Errorf("server: %v", fatal)
	}
}

type brokenKey struct{ crypto.Signer }

func (brokenKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fmt.Errorf("hsm: C_Sign: CKR_DEVICE_REMOVED: %w", keystore.ErrUnavailable)
}

// TestTLSPlainHTTP answers a client that uses http:// instead of https://.
func TestTLSPlainHTTP(t *testing.T) {
	a := newAuthority(t)
	addr := start(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}})
	response, err := http.Post("http://"+addr+"/", "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	if response.StatusCode != 400 || !strings.Contains(string(text), "write https://") {
		t.Errorf("status %d, %q", response.StatusCode, text)
	}
}

// TestTLSBriefErrors has strangers that offer kilobytes of protocols: a log does not get them.
func TestTLSBriefErrors(t *testing.T) {
	a := newAuthority(t)
	var seen events
	addr := start(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, Report: seen.note})
	var many []string
	for range 200 {
		many = append(many, strings.Repeat("\x01", 200))
	}
	if conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: a.pool(), ServerName: "server", NextProtos: many}); err == nil {
		conn.Close()
		t.Fatal("a protocol was agreed on")
	}
	for _, e := range seen.await(t) {
		if e.Alert != tlsalert.NoApplicationProtocol || len(e.Err.Error()) > 2000 {
			t.Errorf("%v: %d bytes: %.200v", e.Alert, len(e.Err.Error()), e.Err)
		}
	}
}

// TestTLSPatience ends a handshake that does not begin.
func TestTLSPatience(t *testing.T) {
	a := newAuthority(t)
	addr := start(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, Patience: 20 * time.Millisecond})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, net.ErrClosed) && !strings.Contains(fmt.Sprint(err), "reset") {
		t.Errorf("got %v", err)
	}
}

// TestTLSClientEnds gives up a handshake when its context ends.
func TestTLSClientEnds(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	transport, err := (&TLSClient{}).Transport()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if c, err := transport.DialTLSContext(ctx, "tcp", silent.Addr().String()); err == nil {
		c.Close()
		t.Error("no error")
	} else if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
