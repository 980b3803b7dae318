package mslhttp

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// An authority issues the certificates of a test.
type authority struct {
	t     testing.TB
	store *soft.Store
	key   crypto.Signer
	root  *x509.Certificate
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, store: soft.New()}
	t.Cleanup(func() { a.store.Close() })
	a.key = a.newKey("ca", keystore.ECDSAP256)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a.root = a.sign(template, template, a.key.Public())
	return a
}

func (a *authority) newKey(label string, algorithm keystore.Algorithm) crypto.Signer {
	a.t.Helper()
	v, err := a.store.Create(label, algorithm)
	if err != nil {
		a.t.Fatal(err)
	}
	return v.Key.(crypto.Signer)
}

func (a *authority) sign(template, parent *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// issue makes a certificate with a key of its own in the store.
func (a *authority) issue(name string, algorithm keystore.Algorithm, change func(*x509.Certificate)) TLSCertificate {
	a.t.Helper()
	return a.certify(a.newKey(fmt.Sprint(name, time.Now().UnixNano()), algorithm), name, change)
}

func (a *authority) certify(key crypto.Signer, name string, change func(*x509.Certificate)) TLSCertificate {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(template)
	}
	return TLSCertificate{Chain: [][]byte{a.sign(template, a.root, key.Public()).Raw, a.root.Raw}, Key: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.root)
	return p
}

// events keeps the reported events.
type events struct {
	mu  sync.Mutex
	all []TLSEvent
}

func (e *events) note(event TLSEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

// await waits until a failure is reported.
func (e *events) await(t testing.TB) []TLSEvent {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if all := e.fatal(); len(all) > 0 {
			return all
		}
	}
	t.Fatal("no failure was reported")
	return nil
}

func (e *events) fatal() (all []TLSEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.all {
		if !event.Warning && event.Origin != 0 {
			all = append(all, event)
		}
	}
	return all
}

// start serves HTTP over TLS on a free port of the loopback address: a greeting.
func start(t testing.TB, s *TLSServer) string {
	t.Helper()
	return startHandler(t, s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %v", tls.VersionName(r.TLS.Version), r.TLS.DidResume)
	}))
}

func startHandler(t testing.TB, s *TLSServer, handler http.Handler) string {
	t.Helper()
	return startLogged(t, s, handler, nil)
}

// startLogged is startHandler for a test that must know the keys.
func startLogged(t testing.TB, s *TLSServer, handler http.Handler, keys io.Writer) string {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Listen(raw)
	if err != nil {
		t.Fatal(err)
	}
	l.(*tlsListener).setup.Load().base.KeyLogWriter = keys
	server := &http.Server{Handler: handler, ConnContext: TLSContext}
	ended := make(chan struct{})
	go func() { server.Serve(l); close(ended) }()
	t.Cleanup(func() { server.Close(); <-ended })
	return raw.Addr().String()
}

// get sends a request to the server called name, which is at addr.
func get(t testing.TB, c *TLSClient, name, addr string) (string, error) {
	t.Helper()
	transport, err := c.Transport()
	if err != nil {
		return "", err
	}
	transport.DisableKeepAlives = true
	if name != "" {
		c := *c
		c.ServerName = name
		if transport, err = c.Transport(); err != nil {
			return "", err
		}
	}
	defer transport.CloseIdleConnections()
	return fetch(&http.Client{Transport: transport}, addr)
}

func fetch(c *http.Client, addr string) (string, error) {
	response, err := c.Get("https://" + addr + "/")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}
