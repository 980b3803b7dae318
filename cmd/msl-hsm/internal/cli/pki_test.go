package cli

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// testAuthority makes a root and an authority under it: root.pem, between.pem and
// between.key.
func testAuthority(ts *testscript.TestScript, _ bool, _ []string) {
	root, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	between, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	ca := func(name string) *x509.Certificate {
		c := certificate(name)
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		return c
	}
	writePEM(ts, "root.pem", "CERTIFICATE", sign(ts, ca("root"), ca("root"), root.Public(), root))
	writePEM(ts, "between.pem", "CERTIFICATE", sign(ts, ca("between"), ca("root"), between.Public(), root))
	der, err := x509.MarshalPKCS8PrivateKey(between)
	ts.Check(err)
	writePEM(ts, "between.key", "PRIVATE KEY", der)
}

func certificate(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func sign(ts *testscript.TestScript, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) []byte {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	ts.Check(err)
	return der
}

// issue KEYFILE PASSPHRASE LABEL NAME OUT certifies a soft key.
func issue(ts *testscript.TestScript, _ bool, args []string) {
	store, err := soft.Config{CheapForTests: true}.Open(ts.MkAbs(args[0]), []byte(args[1]))
	ts.Check(err)
	defer store.Close()
	certified, err := keystore.Find[crypto.Signer](store, args[2])
	ts.Check(err)
	parent, key := between(ts)
	der := sign(ts, certificate(args[3]), parent, certified.Public(), key)
	writePEM(ts, args[4], "CERTIFICATE", der)
}

// crl OUT [CERTIFICATE] makes a revocation list.
func crl(ts *testscript.TestScript, _ bool, args []string) {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	if len(args) > 1 {
		gone, err := keys.ReadCertificates("revoke", ts.MkAbs(args[1]))
		ts.Check(err)
		list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: gone[0].SerialNumber, RevocationTime: time.Now()}}
	}
	issuer, key := between(ts)
	der, err := x509.CreateRevocationList(rand.Reader, list, issuer, key)
	ts.Check(err)
	writePEM(ts, args[0], "X509 CRL", der)
}

// outdate OUT makes a revocation list that is out of date.
func outdate(ts *testscript.TestScript, _ bool, args []string) {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)}
	issuer, key := between(ts)
	der, err := x509.CreateRevocationList(rand.Reader, list, issuer, key)
	ts.Check(err)
	writePEM(ts, args[0], "X509 CRL", der)
}

func between(ts *testscript.TestScript) (*x509.Certificate, crypto.Signer) {
	all, err := keys.ReadCertificates("between", ts.MkAbs("between.pem"))
	ts.Check(err)
	key, err := parsePrivate([]byte(ts.ReadFile("between.key")))
	ts.Check(err)
	return all[0], key
}

func writePEM(ts *testscript.TestScript, name, kind string, der []byte) {
	ts.Check(os.WriteFile(ts.MkAbs(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// keypair rsa|ec FILE PUBLIC makes a key pair in a file of its own, as other tools
// write it, and its public half.
func keypair(ts *testscript.TestScript, _ bool, args []string) {
	var public any
	switch args[0] {
	case "rsa":
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		ts.Check(err)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		ts.Check(err)
		writePEM(ts, args[1], "PRIVATE KEY", der)
		public = key.Public()
	case "ec":
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		ts.Check(err)
		der, err := x509.MarshalECPrivateKey(key)
		ts.Check(err)
		writePEM(ts, args[1], "EC PRIVATE KEY", der)
		public = key.Public()
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	ts.Check(err)
	writePEM(ts, args[2], "PUBLIC KEY", der)
}
