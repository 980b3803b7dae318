package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

// TestCRLFile replaces a file of revocation lists while it is in use.
func TestCRLFile(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := certificate("authority")
	template.IsCA, template.KeyUsage, template.SubjectKeyId = true, x509.KeyUsageCRLSign, []byte{1}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	list := func(next time.Time) []byte {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next,
		}, issuer, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	}
	path := filepath.Join(t.TempDir(), "crl.pem")
	put := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	first, second := time.Now().Add(time.Hour).Truncate(time.Second), time.Now().Add(2*time.Hour).Truncate(time.Second)
	put(append(list(first), list(first)...))
	f, err := keys.OpenCRLs("server.x509-crl", path, []*x509.Certificate{issuer}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, lists int, next time.Time) {
		t.Helper()
		got := f.Current()
		if len(got) != lists || !got[0].NextUpdate().Equal(next) {
			t.Errorf("%s: %d lists until %v, want %d until %v", when, len(got), got[0].NextUpdate(), lists, next)
		}
	}
	check("at the start", 2, first)
	put(list(second))
	check("too early", 2, first)
	f.Checked = time.Time{}
	check("replaced", 1, second)
	for _, broken := range []string{"", "-----BEGIN nothing", "no list"} {
		put([]byte(broken))
		f.Checked = time.Time{}
		check("broken", 1, second)
		if _, err := keys.OpenCRLs("server.x509-crl", path, []*x509.Certificate{issuer}, nil, nil); err == nil {
			t.Errorf("opens %q", broken)
		}
	}
}
