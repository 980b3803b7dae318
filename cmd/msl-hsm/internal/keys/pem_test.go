package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An issuer has a certificate and the lists of what it revoked, in PEM.
type issuer struct {
	certificate *x509.Certificate
	text        []byte
	key         *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) issuer {
	t.Helper()
	return issuerNamed(t, "")
}

func issuerNamed(t *testing.T, name string) issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte{1},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if template, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return issuer{template, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key}
}

func (i issuer) crl(t *testing.T, number int64) []byte {
	t.Helper()
	return i.crlOf(t, number, time.Now())
}

func (i issuer) crlOf(t *testing.T, number int64, at time.Time) []byte {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(number), ThisUpdate: at, NextUpdate: time.Now().Add(time.Hour),
	}, i.certificate, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// damages are files of two blocks of which one cannot be read, and the errors for them.
func damages(one, two []byte) map[string][]byte {
	return map[string][]byte{
		"line 1: a damaged block":  bytes.Join([][]byte{bytes.TrimSpace(one), two}, nil),
		"line 1: a damaged block ": bytes.Join([][]byte{bytes.TrimSpace(one), two, two}, nil),
		"a damaged block":          bytes.Join([][]byte{one, two[:80]}, nil),
		" damaged block":           bytes.Join([][]byte{one, two[30:]}, nil),
		"damaged block":            bytes.Join([][]byte{one, bytes.Replace(two, []byte("-----END"), []byte("----END"), 1)}, nil),
	}
}

// TestDamagedLists refuses a file of revocation lists that cannot be read to its end: what is
// left out would be trusted.
func TestDamagedLists(t *testing.T) {
	i := newIssuer(t)
	one, two := i.crl(t, 1), i.crl(t, 2)
	issuers := []*x509.Certificate{i.certificate}
	if lists, err := parseCRLs(append(bytes.Clone(one), two...), issuers); len(lists) != 2 || err != nil {
		t.Errorf("%d lists, %v", len(lists), err)
	}
	for want, text := range damages(one, two) {
		if lists, err := parseCRLs(text, issuers); lists != nil || err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%q: %d lists, %v", want, len(lists), err)
		}
	}
}

// TestDamagedCertificates refuses a file of certificates that cannot be read to its end.
func TestDamagedCertificates(t *testing.T) {
	one := newIssuer(t).text
	path := filepath.Join(t.TempDir(), "certificates")
	for want, text := range damages(one, one) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if all, err := ReadCertificates("server.x", path); all != nil || err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) || !strings.HasSuffix(err.Error(), ": put the whole file there again") {
			t.Errorf("%q: %d certificates, %v", want, len(all), err)
		}
		if _, err := ReadPublicKeys(path); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%q: public keys: %v", want, err)
		}
	}
}
