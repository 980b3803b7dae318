package admin

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
)

// TestEtcdCA has a file of trusted certificates with a damaged block, and one without any.
func TestEtcdCA(t *testing.T) {
	for text, want := range map[string]string{
		"-----BEGIN CERTIFICATE-----\nMIIB": "line 1: a damaged block of PEM",
		"no certificate\n":                  "has no PEM block CERTIFICATE",
	} {
		ca := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := etcdTLS(&config.State{CA: ca})
		if err == nil || exit.Code(err) != exit.Usage || !strings.Contains(err.Error(), "server.state.ca") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestEtcdClientWrong has wrong files for the client certificate: the error names the setting and
// the file.
func TestEtcdClientWrong(t *testing.T) {
	dir := t.TempDir()
	own := &config.State{Certificate: filepath.Join(dir, "client.pem"), Key: filepath.Join(dir, "client.key")}
	writePair(t, own, 1)
	other := &config.State{Certificate: filepath.Join(dir, "other.pem"), Key: filepath.Join(dir, "other.key")}
	writePair(t, other, 2)
	for _, c := range []struct{ certificate, key, want string }{
		{own.Key, own.Key, "server.state.certificate: " + own.Key + " has no PEM block CERTIFICATE"},
		{own.Certificate, other.Key, "server.state.key: " + other.Key + " does not contain the private key of " + own.Certificate},
		{own.Certificate, own.Certificate, "server.state.key: " + own.Certificate + " does not contain the private key of"},
		{own.Certificate, dir, "server.state.key: read " + dir},
	} {
		_, _, err := etcdTLS(&config.State{Certificate: c.certificate, Key: c.key})
		if err == nil || exit.Code(err) != exit.Usage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestEtcdCAReplaced replaces the file of trusted certificates: the next connection, of the
// enrollments too, trusts the new ones, or fails while they cannot be read.
func TestEtcdCAReplaced(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s := &config.State{CA: ca, Certificate: ca, Key: filepath.Join(t.TempDir(), "ca.key")}
	writePair(t, s, 1)
	c, roots, err := etcdTLS(s)
	if err != nil {
		t.Fatal(err)
	}
	roots = devicesAt(etcd.Config{TLS: c, Roots: roots}).Roots
	first, err := roots()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.CA, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := roots(); err == nil || !strings.Contains(err.Error(), "server.state.ca") {
		t.Errorf("half a file: %v", err)
	}
	writePair(t, s, 2)
	second, err := roots()
	if err != nil || second.Equal(first) {
		t.Errorf("the former CA is still trusted, or %v", err)
	}
}

// TestEtcdCertificateRenewed replaces the client certificate and its key: the next connection
// uses the new ones, or fails while they cannot be read.
func TestEtcdCertificateRenewed(t *testing.T) {
	s := &config.State{Certificate: filepath.Join(t.TempDir(), "client.pem"), Key: filepath.Join(t.TempDir(), "client.key")}
	writePair(t, s, 1)
	c, _, err := etcdTLS(s)
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.Key, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetClientCertificate(nil); err == nil {
		t.Error("half a key was used")
	}
	writePair(t, s, 2)
	second, err := c.GetClientCertificate(nil)
	if err != nil || bytes.Equal(first.Certificate[0], second.Certificate[0]) {
		t.Errorf("the former certificate is still used, or %v", err)
	}
}

// writePair writes a certificate and its key.
func writePair(t *testing.T, s *config.State, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{s.Certificate: {Type: "CERTIFICATE", Bytes: certificate}, s.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEtcdPasswordPrompt prompts once, and never while a server runs.
func TestEtcdPasswordPrompt(t *testing.T) {
	if tty, err := os.Open("/dev/tty"); err == nil {
		tty.Close()
		t.Skip("there is a terminal, and nobody is there to answer")
	}
	read := etcdPassword("prompt")
	if _, err := read(t.Context()); err == nil || !strings.Contains(err.Error(), "no terminal") {
		t.Errorf("the first time: %v", err)
	}
	if _, err := read(t.Context()); err == nil || !strings.Contains(err.Error(), "prompted for once") {
		t.Errorf("the second time: %v", err)
	}
}
