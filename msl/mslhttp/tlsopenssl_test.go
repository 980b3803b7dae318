package mslhttp

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// openssl skips a test if openssl is not installed.
func openssl(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if strings.Contains(os.Getenv("MSL_TEST_REQUIRE"), "openssl") {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func writePEM(t *testing.T, path, kind string, der ...[]byte) string {
	t.Helper()
	var text []byte
	for _, d := range der {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: d})...)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOpenSSLClient has a client that sends alerts which Go never sends.
func TestOpenSSLClient(t *testing.T) {
	openssl(t)
	a := newAuthority(t)
	dir := t.TempDir()
	root := writePEM(t, filepath.Join(dir, "root.pem"), "CERTIFICATE", a.root.Raw)
	other := writePEM(t, filepath.Join(dir, "other.pem"), "CERTIFICATE", newAuthority(t).root.Raw)
	for _, test := range []struct {
		name   string
		args   []string
		alert  tlsalert.Alert
		origin tlsalert.Origin
	}{
		{"TLS 1.3", []string{"-tls1_3", "-servername", "server", "-CAfile", root}, 0, 0},
		{"TLS 1.2", []string{"-tls1_2", "-servername", "server", "-CAfile", root}, 0, 0},
		{"unknown CA, TLS 1.3", []string{"-tls1_3", "-servername", "server", "-CAfile", other}, tlsalert.UnknownCA, tlsalert.Received},
		{"unknown CA, TLS 1.2", []string{"-tls1_2", "-servername", "server", "-CAfile", other}, tlsalert.UnknownCA, tlsalert.Received},
		{"old version", []string{"-tls1_1", "-cipher", "ALL@SECLEVEL=0", "-servername", "server"}, tlsalert.ProtocolVersion, tlsalert.Sent},
		{"wrong name", []string{"-servername", "stranger"}, tlsalert.UnrecognizedName, tlsalert.Sent},
		{"wrong protocol", []string{"-servername", "server", "-alpn", "smtp"}, tlsalert.NoApplicationProtocol, tlsalert.Sent},
		{"no suite", []string{"-tls1_2", "-servername", "server", "-cipher", "AES128-GCM-SHA256"}, tlsalert.HandshakeFailure, tlsalert.Sent},
	} {
		t.Run(test.name, func(t *testing.T) {
			ended := make(chan TLSEvent, 8)
			addr := start(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, Report: func(e TLSEvent) { ended <- e }})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			args := append([]string{"s_client", "-connect", addr, "-verify_return_error", "-ign_eof"}, test.args...)
			c := exec.CommandContext(ctx, "openssl", args...)
			c.Stdin = strings.NewReader("GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")
			out, _ := c.CombinedOutput() // its exit code differs between versions
			if test.origin == 0 {
				if !strings.Contains(string(out), "200 OK") || len(ended) > 0 {
					t.Errorf("%d events, openssl says\n%s", len(ended), out)
				}
				return
			}
			select {
			case e := <-ended:
				if e.Alert != test.alert || e.Origin != test.origin {
					t.Errorf("%v %v of %v; openssl says\n%s", e.Origin, e.Alert, e.Err, out)
				}
			case <-ctx.Done():
				t.Errorf("no failure; openssl says\n%s", out)
			}
		})
	}
}

// TestEarlyData has a client resume a session and try to send data with its first flight, which
// anyone could send again: the server offers no such data.
func TestEarlyData(t *testing.T) {
	openssl(t)
	a := newAuthority(t)
	addr := start(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}})
	session, early := filepath.Join(t.TempDir(), "session"), filepath.Join(t.TempDir(), "early")
	request := "GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n"
	if err := os.WriteFile(early, []byte(request), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"-sess_out " + session, "Max Early Data: 0"},
		{"-sess_in " + session + " -early_data " + early, "Reused, TLSv1.3"},
		{"-sess_in " + session + " -early_data " + early, "Early data was not sent"},
	} {
		args := append([]string{"s_client", "-connect", addr, "-ign_eof", "-tls1_3", "-servername", "server"}, strings.Fields(c.args)...)
		command := exec.CommandContext(t.Context(), "openssl", args...)
		command.Stdin = strings.NewReader(request)
		if out, _ := command.CombinedOutput(); !strings.Contains(string(out), c.want) || !strings.Contains(string(out), "200 OK") {
			t.Errorf("%s: openssl says\n%s", c.args, out)
		}
	}
}

// TestOpenSSLServer has a server that sends alerts which Go never sends.
func TestOpenSSLServer(t *testing.T) {
	openssl(t)
	a := newAuthority(t)
	dir := t.TempDir()
	root := writePEM(t, filepath.Join(dir, "root.pem"), "CERTIFICATE", a.root.Raw)
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
		"-subj", "/CN=server", "-addext", "subjectAltName=DNS:server", "-keyout", key, "-out", cert).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	client := a.issue("client", keystore.ECDSAP256, nil)
	leaf, err := x509.ParseCertificate(client.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: leaf.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)}},
	}, withCRLSign(a), a.key)
	if err != nil {
		t.Fatal(err)
	}
	revoked := writePEM(t, filepath.Join(dir, "crl.pem"), "X509 CRL", crl)
	for _, test := range []struct {
		name   string
		args   []string
		client TLSClient
		alert  tlsalert.Alert
		origin tlsalert.Origin
	}{
		{"good", nil, TLSClient{Roots: roots}, 0, 0},
		{"client certificate", []string{"-Verify", "1", "-CAfile", root}, TLSClient{Roots: roots, Certificate: &client}, 0, 0},
		{"none, TLS 1.3", []string{"-tls1_3", "-Verify", "1", "-CAfile", root}, TLSClient{Roots: roots}, tlsalert.CertificateRequired, tlsalert.Received},
		{"none, TLS 1.2", []string{"-tls1_2", "-Verify", "1", "-CAfile", root}, TLSClient{Roots: roots}, tlsalert.HandshakeFailure, tlsalert.Received},
		{"revoked, TLS 1.3", []string{"-tls1_3", "-Verify", "1", "-CAfile", root, "-crl_check", "-CRL", revoked}, TLSClient{Roots: roots, Certificate: &client}, tlsalert.CertificateRevoked, tlsalert.Received},
		{"revoked, TLS 1.2", []string{"-tls1_2", "-Verify", "1", "-CAfile", root, "-crl_check", "-CRL", revoked}, TLSClient{Roots: roots, Certificate: &client}, tlsalert.CertificateRevoked, tlsalert.Received},
		{"not trusted", nil, TLSClient{Roots: a.pool()}, tlsalert.BadCertificate, tlsalert.Sent},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := serveOpenSSL(t, append([]string{"-cert", cert, "-key", key, "-www", "-verify_return_error"}, test.args...))
			test.client.ServerName = "server"
			transport, err := test.client.Transport()
			if err != nil {
				t.Fatal(err)
			}
			defer transport.CloseIdleConnections()
			_, err = fetch(&http.Client{Transport: transport}, addr)
			alert, origin, _ := tlsalert.From(err)
			if alert != test.alert || origin != test.origin || (err == nil) != (test.origin == 0) {
				t.Errorf("%v %v of %v", origin, alert, err)
			}
		})
	}
}

func withCRLSign(a *authority) *x509.Certificate {
	issuer := *a.root
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	return &issuer
}

// serveOpenSSL starts a server on a free port.
func serveOpenSSL(t *testing.T, args []string) (addr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, "openssl", append([]string{"s_server", "-accept", "127.0.0.1:0"}, args...)...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	c.Stderr = &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		c.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if port, ok := strings.CutPrefix(lines.Text(), "ACCEPT "); ok {
			go io.Copy(io.Discard, out)
			return port
		}
	}
	t.Fatal("openssl s_server does not get ready")
	return ""
}
