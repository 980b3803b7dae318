package mslhttp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert/tlsalerttest"
)

// revoke makes a revocation list of the authority.
func (a *authority) revoke(next time.Time, serials ...*big.Int) *entityauth.CRL {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next}
	for _, serial := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, withCRLSign(a), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	crl, err := entityauth.ParseCRL(der, a.root)
	if err != nil {
		a.t.Fatal(err)
	}
	return crl
}

func serialOf(t *testing.T, c TLSCertificate) *big.Int {
	t.Helper()
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.SerialNumber
}

// TestTLSRevokedClient revokes the certificate of a client, once while it has a
// session, and lets the list expire.
func TestTLSRevokedClient(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			a := newAuthority(t)
			good, bad := a.issue("good", keystore.ECDSAP256, nil), a.issue("bad", keystore.ECDSAP256, nil)
			var list atomic.Pointer[entityauth.CRL]
			list.Store(a.revoke(time.Now().Add(time.Hour)))
			var seen events
			addr := start(t, &TLSServer{
				Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, ClientCAs: a.pool(), Report: seen.note,
				CheckClient: func(chain []*x509.Certificate) error {
					return entityauth.CheckChain(chain, []*entityauth.CRL{list.Load()}, false, time.Now())
				},
			})
			sessions := tls.NewLRUClientSessionCache(1)
			dial := func(own TLSCertificate, want tlsalert.Alert, cause string) {
				t.Helper()
				before := len(seen.fatal())
				c, err := tls.Dial("tcp", addr, &tls.Config{
					ServerName: "server", RootCAs: a.pool(), MinVersion: version, MaxVersion: version, ClientSessionCache: sessions,
					Certificates: []tls.Certificate{{Certificate: own.Chain, PrivateKey: own.Key}},
				})
				if err == nil {
					defer c.Close()
					fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
					_, err = io.ReadAll(c)
				}
				if alert, origin, _ := tlsalert.From(err); alert != want || (want != 0) != (err != nil) || want != 0 && origin != tlsalert.Received {
					t.Errorf("want %v, the client got %v", want, err)
				}
				if want == 0 {
					return
				}
				for end := time.Now().Add(5 * time.Second); len(seen.fatal()) == before; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("the server reports nothing, the client got %v", err)
					}
				}
				e := seen.fatal()[before]
				if e.Alert != want || e.Origin != tlsalert.Sent || strings.Count(e.Err.Error(), cause) != 1 {
					t.Errorf("the server reports %v %v: %v", e.Origin, e.Alert, e.Err)
				}
			}
			dial(good, 0, "")
			sessions = tls.NewLRUClientSessionCache(1)
			dial(bad, 0, "") // and has a session
			list.Store(a.revoke(time.Now().Add(time.Hour), serialOf(t, bad)))
			dial(bad, tlsalert.CertificateRevoked, "is revoked")
			sessions = tls.NewLRUClientSessionCache(1)
			dial(bad, tlsalert.CertificateRevoked, "is revoked")
			sessions = tls.NewLRUClientSessionCache(1)
			dial(good, 0, "")
			list.Store(a.revoke(time.Now().Add(-time.Minute), serialOf(t, bad)))
			dial(good, tlsalert.CertificateUnknown, "has been out of date since")
			sessions = tls.NewLRUClientSessionCache(1)
			dial(bad, tlsalert.CertificateRevoked, "is revoked")
		})
	}
}

// TestOpenSSLRevoked shows each cipher of TLS 1.3 to another stack.
func TestOpenSSLRevoked(t *testing.T) {
	openssl(t)
	a := newAuthority(t)
	dir := t.TempDir()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	bad := a.certify(signer, "bad", nil)
	certificate, keyFile := writePEM(t, dir+"/bad.pem", "CERTIFICATE", bad.Chain[0]), writePEM(t, dir+"/bad.key", "PRIVATE KEY", key)
	list := a.revoke(time.Now().Add(time.Hour), serialOf(t, bad))
	addr := start(t, &TLSServer{
		Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, ClientCAs: a.pool(),
		CheckClient: func(chain []*x509.Certificate) error {
			return entityauth.CheckChain(chain, []*entityauth.CRL{list}, false, time.Now())
		},
	})
	for _, suite := range []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"} {
		c := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", addr, "-servername", "server", "-tls1_3", "-ciphersuites", suite, "-cert", certificate, "-key", keyFile, "-ign_eof")
		c.Stdin = strings.NewReader("GET / HTTP/1.0\r\n\r\n")
		out, _ := c.CombinedOutput()
		if !strings.Contains(string(out), "revoked") || !strings.Contains(string(out), "alert number 44") {
			t.Errorf("%s: %s", suite, out)
		}
	}
}

// TestForgottenBeforeTheAlert checks which sessions can be resumed at the moment when a
// fatal alert is sent.
func TestForgottenBeforeTheAlert(t *testing.T) {
	both(t, func(t *testing.T, version uint16, client bool) {
		b := newTLSBench(t, newAuthority(t), version)
		c, s := b.established(&tlsalerttest.Wire{At: tlsalerttest.AfterHandshake})
		victim, other := choose(client, c, s), choose(client, s, c)
		var late atomic.Bool
		victim.wire.Conn = &watchedConn{victim.wire.Conn, func() {
			if client {
				_, kept := b.dialer.sessions.Get("server")
				late.Store(kept)
				return
			}
			b.listener.deny.mu.Lock()
			late.Store(len(b.listener.deny.denied) == 0)
			b.listener.deny.mu.Unlock()
		}}
		// A record under no key at all.
		junk := append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...)
		if _, err := other.wire.Conn.Write(junk); err != nil {
			t.Fatal(err)
		}
		if _, err := victim.Read(make([]byte, 1)); err == nil {
			t.Error("junk is read")
		}
		if late.Load() {
			t.Error("the session could be resumed when the alert went out")
		}
	})
}

// A watchedConn calls a function before it writes.
type watchedConn struct {
	net.Conn
	look func()
}

func (w *watchedConn) Write(p []byte) (int, error) {
	w.look()
	return w.Conn.Write(p)
}

// TestNotTLS sends a TLS server data that is not TLS: that is not worth an alarm.
func TestNotTLS(t *testing.T) {
	for name, test := range map[string]struct {
		junk  string
		alert bool
	}{
		"HTTP":        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", false},
		"junk":        {"\x00\x01\x02\x03\x04\x05", true},
		"SSH":         {"SSH-2.0-OpenSSH_9.6\r\n", true},
		"data record": {"\x17\x03\x03\x00\x05hello", true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			var seen events
			addr := start(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, Report: seen.note})
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(c, test.junk)
			answer, _ := io.ReadAll(c)
			if alert := len(answer) == 7 && answer[0] == 21 && answer[5] == 2 && answer[6] == 10; alert != test.alert {
				t.Errorf("the answer is %q", answer)
			}
			var reports []TLSEvent
			for end := time.Now().Add(5 * time.Second); len(reports) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
				seen.mu.Lock()
				reports = seen.all
				seen.mu.Unlock()
			}
			if len(reports) == 0 {
				t.Fatal("nothing was reported")
			}
			e := reports[0]
			if class := Classify(e.Err); class.Level > slog.LevelInfo && name != "data record" {
				t.Errorf("%v is of class %s", e.Err, class.Name)
			}
		})
	}
}

// TestTLSSaysOnce has failures whose text comes from the checks of this package.
func TestTLSSaysOnce(t *testing.T) {
	a := newAuthority(t)
	server := a.issue("server", keystore.ECDSAP256, nil)
	var seen events
	addr := start(t, &TLSServer{Certificates: []TLSCertificate{server}, Report: seen.note})
	if _, err := get(t, &TLSClient{Roots: a.pool()}, "other.example", addr); err == nil {
		t.Error("an unknown name is served")
	}
	if text := seen.await(t)[0].Err.Error(); strings.Count(text, `"other.example"`) != 1 || strings.Contains(text, "no certificates configured") {
		t.Error(text)
	}
	var revoked *tlsalert.Error
	refusal := &tlsalert.Error{Alert: tlsalert.BadCertificate, Origin: tlsalert.Sent, Err: errors.New("its own response speaks against it")}
	c := newTLSConn(nil, newRules(0, nil, nil), false)
	if err := c.explain(refusal, refusal.Alert, refusal.Origin, true); !errors.As(err, &revoked) || strings.Count(err.Error(), "this side sent TLS alert") != 1 {
		t.Error(err)
	}
}
