package mslhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert/tlsalerttest"
)

// A tlsBench is a server and a client of this package, with a wire between them.
type tlsBench struct {
	testing.TB
	version  uint16
	listener *tlsListener
	dialer   *tlsDialer
	accepted chan *TLSConn
	alerts   [2]tlsalert.Counter // of the server, of the client
	seen     [2]events
}

func newTLSBench(t testing.TB, a *authority, version uint16) *tlsBench {
	t.Helper()
	b := &tlsBench{TB: t, version: version, accepted: make(chan *TLSConn, 1)}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, Alerts: &b.alerts[0], Report: b.seen[0].note}
	l, err := server.Listen(raw)
	if err != nil {
		t.Fatal(err)
	}
	b.listener = l.(*tlsListener)
	suites := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	b.listener.setup.Load().base.CipherSuites = suites
	b.dialer, err = (&TLSClient{Roots: a.pool(), Alerts: &b.alerts[1], Report: b.seen[1].note}).dialer()
	if err != nil {
		t.Fatal(err)
	}
	b.dialer.base.MinVersion, b.dialer.base.MaxVersion = version, version
	t.Cleanup(func() { raw.Close() })
	return b
}

// connect makes a connection through the wire, and returns the handshake error of each
// side.
func (b *tlsBench) connect(w *tlsalerttest.Wire) (client, server *TLSConn, clientErr, serverErr error) {
	b.Helper()
	w.Keys = &tlsalerttest.Keys{}
	b.listener.setup.Load().base.KeyLogWriter = w.Keys
	raw, err := w.Dial(b.listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { w.Close(); raw.Close() })
	accepted, err := b.listener.Accept()
	if err != nil {
		b.Fatal(err)
	}
	server = accepted.(*TLSConn)
	shaken := make(chan error, 1)
	go func() { shaken <- server.HandshakeContext(context.Background()) }()
	c, clientErr := b.dialer.over(b.Context(), raw, "server")
	serverErr = <-shaken
	if w.Err() != nil {
		b.Fatal(w.Err())
	}
	client, _ = c.(*TLSConn)
	return client, server, clientErr, serverErr
}

// established is connect for a handshake that must succeed. Each side has then read
// everything that the other sent.
func (b *tlsBench) established(w *tlsalerttest.Wire) (client, server *TLSConn) {
	b.Helper()
	client, server, err1, err2 := b.connect(w)
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	pass(b, server, client) // and the ticket before it
	pass(b, client, server)
	return client, server
}

func pass(t testing.TB, from, to net.Conn) {
	t.Helper()
	if _, err := from.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
}

// fresh makes the next handshake a full one.
func (b *tlsBench) fresh() { b.dialer.sessions = tls.NewLRUClientSessionCache(1) }

// sentSoFar is how many records the peer of the victim has sent in an established
// connection, after its Finished message.
func (b *tlsBench) sentSoFar(victimIsClient bool) uint64 {
	if victimIsClient && b.version == tls.VersionTLS13 {
		return 2 // the ticket and hello
	}
	return 1
}

// resumes reports whether the next connection resumes the session.
func (b *tlsBench) resumes() bool {
	b.Helper()
	client, server := b.established(&tlsalerttest.Wire{At: tlsalerttest.AfterHandshake})
	defer server.Close()
	defer client.Close()
	return client.ConnectionState().DidResume
}

func both(t *testing.T, test func(t *testing.T, version uint16, client bool)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, client := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/client %v", tls.VersionName(version), client), func(t *testing.T) { test(t, version, client) })
		}
	}
}

func choose[T any](client bool, ofClient, ofServer T) T {
	if client {
		return ofClient
	}
	return ofServer
}
