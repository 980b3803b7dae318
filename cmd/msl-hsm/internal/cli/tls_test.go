//go:build cgo && !nopkcs11

package cli

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A pipes is a listener whose connections are in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) { return <-p, nil }

func (p pipes) Close() error { return nil }

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A handshaker makes handshakes with a server that has that key.
type handshaker struct {
	testing.TB
	key    crypto.Signer
	raw    pipes
	l      net.Listener
	client *tls.Config
}

func newHandshaker(t testing.TB, key crypto.Signer) *handshaker {
	t.Helper()
	block, err := certificateRequest(key, []string{"server"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	h := &handshaker{TB: t, key: key, raw: make(pipes, 1), client: &tls.Config{ServerName: "server", RootCAs: x509.NewCertPool()}}
	h.client.RootCAs.AddCert(leaf)
	h.l, err = (&mslhttp.TLSServer{Certificates: []mslhttp.TLSCertificate{{Chain: [][]byte{block.Bytes}, Key: key}}}).Listen(h.raw)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// shake makes one handshake, and reports whether it resumed a session.
func (h *handshaker) shake() (resumed bool) {
	h.Helper()
	here, there := net.Pipe()
	h.raw <- there
	accepted, err := h.l.Accept()
	if err != nil {
		h.Fatal(err)
	}
	server := accepted.(*mslhttp.TLSConn)
	ended := make(chan error, 1)
	go func() {
		err := server.HandshakeContext(context.Background())
		if err == nil {
			_, err = server.Write([]byte("x"))
		}
		ended <- err
	}()
	client := tls.Client(here, h.client)
	_, err = io.ReadFull(client, make([]byte, 1)) // and the ticket before it
	if shaken := <-ended; err != nil || shaken != nil {
		h.Fatalf("client %v, server %v", err, shaken)
	}
	resumed = client.ConnectionState().DidResume
	here.Close()
	there.Close()
	server.Close()
	return resumed
}

// sign is the one operation that a handshake has of the key.
func (h *handshaker) sign() {
	h.Helper()
	digest := sha256.Sum256([]byte("handshake"))
	if _, err := h.key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		h.Fatal(err)
	}
}

// TestHandshakeCalls counts what a handshake costs the token: one signature and
// nothing else, and nothing at all where it resumes a session.
func TestHandshakeCalls(t *testing.T) {
	skipWithRace(t)
	store := openSoftHSM(t)
	counter := store.(interface{ Calls() map[string]uint64 })
	for _, a := range []keystore.Algorithm{keystore.ECDSAP256, keystore.ECDSAP384, keystore.RSASign2048} {
		v, err := store.Create("tls-"+a.String(), a)
		if err != nil {
			t.Fatal(err)
		}
		h := newHandshaker(t, v.Key.(crypto.Signer))
		h.shake()
		h.client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for _, test := range []struct {
			resumed bool
			calls   map[string]uint64
		}{
			{false, map[string]uint64{"C_SignInit": 1, "C_Sign": 1}},
			{true, map[string]uint64{}},
		} {
			before := counter.Calls()
			if resumed := h.shake(); resumed != test.resumed {
				t.Errorf("%v: resumed %v", a, resumed)
			}
			for name, n := range counter.Calls() {
				if n -= before[name]; n != test.calls[name] {
					t.Errorf("%v, resumed %v: %d calls of %s", a, test.resumed, n, name)
				}
			}
		}
	}
}

// BenchmarkTLSHandshake compares a handshake with the token's key to one with a key in
// memory whose signature takes as long as the token's. The parts take turns, and each
// figure is a median.
func BenchmarkTLSHandshake(b *testing.B) {
	for _, test := range []struct {
		algorithm keystore.Algorithm
		generate  func() (crypto.Signer, error)
	}{
		{keystore.ECDSAP256, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
		{keystore.RSASign2048, func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }},
	} {
		b.Run(test.algorithm.String(), func(b *testing.B) {
			v, err := openSoftHSM(b).Create("tls", test.algorithm)
			if err != nil {
				b.Fatal(err)
			}
			key, err := test.generate()
			if err != nil {
				b.Fatal(err)
			}
			token, memory := newHandshaker(b, v.Key.(crypto.Signer)), newHandshaker(b, key)
			if test.algorithm == keystore.RSASign2048 {
				token.client.MaxVersion, memory.client.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 // the token's key has no more
			}
			parts := []func(){func() { token.shake() }, func() { memory.shake() }, token.sign, memory.sign}
			for _, part := range parts {
				part()
			}
			took := make([][]float64, len(parts))
			b.ResetTimer()
			for range b.N {
				for i, part := range parts {
					start := time.Now()
					part()
					took[i] = append(took[i], float64(time.Since(start)))
				}
			}
			var medians [4]float64
			for i := range took {
				slices.Sort(took[i])
				medians[i] = took[i][len(took[i])/2]
			}
			b.ReportMetric(medians[0], "ns/token")
			b.ReportMetric(medians[1]-medians[3]+medians[2], "ns/bound")
			b.ReportMetric(medians[0]/(medians[1]-medians[3]+medians[2]), "ratio")
		})
	}
}
