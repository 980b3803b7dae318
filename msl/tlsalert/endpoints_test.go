package tlsalert_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert/tlsalerttest"
)

// certify makes a self-signed certificate, after a change to its template.
func certify(t testing.TB, name string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func pool(certificates ...tls.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c.Leaf)
	}
	return p
}

// A pair is the two configurations of a working connection, which a test may spoil.
type pair struct{ client, server *tls.Config }

func newPair(t testing.TB, version uint16) pair {
	own := certify(t, "server", nil)
	suites := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	return pair{
		client: &tls.Config{ServerName: "server", RootCAs: pool(own), MinVersion: version, MaxVersion: version, CipherSuites: suites},
		server: &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: version, MaxVersion: version, CipherSuites: suites, SessionTicketsDisabled: true},
	}
}

// connect makes both handshakes through the wire, and reads until there is an error
// on each side. Established is called when both handshakes are done.
func (p pair) connect(t testing.TB, w *tlsalerttest.Wire, established func()) (client, server error) {
	t.Helper()
	w.Keys = &tlsalerttest.Keys{}
	p.server.KeyLogWriter = w.Keys
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := w.Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	run := func(c *tls.Conn, shaken chan<- error, result chan<- error) {
		defer c.NetConn().Close()
		err := c.HandshakeContext(ctx)
		shaken <- err
		if err == nil {
			_, err = io.Copy(io.Discard, c)
		}
		result <- err
	}
	shaken := make(chan error, 2)
	results := [2]chan error{make(chan error, 1), make(chan error, 1)}
	go run(tls.Client(raw, p.client), shaken, results[0])
	go run(tls.Server(accepted, p.server), shaken, results[1])
	if errors.Join(<-shaken, <-shaken) == nil {
		if established == nil {
			w.Close()
		} else {
			established()
		}
	}
	client, server = <-results[0], <-results[1]
	if w.Err() != nil {
		t.Fatal(w.Err())
	}
	return client, server
}

// TestReceived injects each of the 256 alerts into real connections of both versions,
// in both directions and in every state, and finds it in the error.
func TestReceived(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, client := range []bool{true, false} {
			for _, at := range []tlsalerttest.State{tlsalerttest.BeforeHello, tlsalerttest.DuringHandshake, tlsalerttest.AfterHandshake} {
				t.Run(fmt.Sprintf("%s/client %v/%v", tls.VersionName(version), client, at), func(t *testing.T) {
					p := newPair(t, version)
					for n := 1; n < 256; n++ {
						if a := tlsalert.Alert(n); !known(a) && n%16 != 0 || version == tls.VersionTLS13 && a == tlsalert.UserCanceled {
							continue
						}
						receive(t, p, tlsalert.Alert(n), client, at)
					}
				})
			}
		}
	}
}

func known(a tlsalert.Alert) bool { return a.Info().Name != "" }

func receive(t *testing.T, p pair, a tlsalert.Alert, client bool, at tlsalerttest.State) {
	t.Helper()
	w := &tlsalerttest.Wire{Client: client, Alert: [2]byte{tlsalert.FatalByte, byte(a)}, At: at}
	clientErr, serverErr := p.connect(t, w, func() {
		if err := w.Inject(tlsalert.FatalByte, byte(a), 0); err != nil {
			t.Fatal(err)
		}
	})
	err := serverErr
	find := tlsalert.FromServer
	if client {
		err, find = clientErr, tlsalert.From
	}
	for _, err := range []error{err, fmt.Errorf("wrapped: %w", err), &net.OpError{Op: "proxyconnect", Err: err}, errors.Join(io.ErrUnexpectedEOF, err), flat(err)} {
		if got, origin, ok := find(err); got != a || origin != tlsalert.Received || !ok {
			t.Errorf("alert %d %v: found %v %v (%v) in %q", a, a, origin, got, ok, err)
		}
	}
}

// flat returns the error without its types, except wrappers of crypto/tls.
func flat(err error) error {
	for errors.Unwrap(err) != nil {
		if _, ok := err.(*net.OpError); ok {
			break
		}
		err = errors.Unwrap(err)
	}
	return errors.New(err.Error())
}

// TestWarnings finds no alert where crypto/tls continues.
func TestWarnings(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		p := newPair(t, version)
		w := &tlsalerttest.Wire{Client: true, Alert: [2]byte{tlsalert.WarningByte, byte(tlsalert.UserCanceled)}, At: tlsalerttest.AfterHandshake}
		client, _ := p.connect(t, w, func() {
			if err := errors.Join(w.Inject(tlsalert.WarningByte, byte(tlsalert.UserCanceled), 0), w.Inject(tlsalert.WarningByte, byte(tlsalert.CloseNotify), 1)); err != nil {
				t.Fatal(err)
			}
		})
		if client != nil {
			t.Errorf("%s: after user_canceled and close_notify: %v", tls.VersionName(version), client)
		}
	}
}

// TestQUIC finds the alert that a QUIC connection would send.
func TestQUIC(t *testing.T) {
	p := newPair(t, tls.VersionTLS13)
	q := tls.QUICServer(&tls.QUICConfig{TLSConfig: p.server})
	defer q.Close()
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := q.HandleData(tls.QUICEncryptionLevelInitial, []byte{2, 0, 0, 0}) // not a client hello
	var number tls.AlertError
	if !errors.As(err, &number) {
		t.Fatalf("no tls.AlertError in %v", err)
	}
	if a, origin, ok := tlsalert.FromServer(err); a != tlsalert.Alert(number) || origin != tlsalert.Sent || !ok {
		t.Errorf("found %v %v (%v) in %v", origin, a, ok, err)
	}
}
