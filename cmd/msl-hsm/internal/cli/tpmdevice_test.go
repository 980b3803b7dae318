package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestMakerOfDevice enrolls a device by the certificate of its maker, at a server that
// refuses all others, and checks the evidence afterwards.
func TestMakerOfDevice(t *testing.T) {
	skipWithRace(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := issued(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Device Maker"}, IsCA: true, BasicConstraintsValid: true}, nil, key, key.Public())
	s := newSite(t)
	s.stop()
	s.write("devices.pem", string(enroll.PEM("CERTIFICATE", root.Raw)))
	s.write("server.yaml", "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\n"+
		"server: {state: server.db, custody: imported, enrollment: {state: enroll.db, unknown: refuse, device-roots: devices.pem}}\n")
	s.command("state", "init")
	s.serve()

	enrolls := func(uri string) (code int, trouble string) {
		t.Helper()
		s.run("--keystore", uri, "tpm", "init", "--ek", "p256")
		var out bytes.Buffer
		code = runCheaply([]string{"--keystore", uri, "tpm", "enroll", "--server", s.url + "/enroll", "--server-key", s.path("server.pem")}, nil, io.Discard, &out)
		return code, out.String()
	}
	plain := tpmtest.Serve(t) + "&state=" + s.path("plain.keys")
	if code, trouble := enrolls(plain); code != exit.Refused {
		t.Errorf("a device without a certificate: exit code %d, %s", code, trouble)
	}
	p := tpmtest.Start(t)
	provideIAK(t, p, root, key)
	uri := tpmtest.ServeQuirky(t, p, fieldQuirks()["none"]) + "&state=" + s.path("device.keys")
	if code, trouble := enrolls(uri); code != 0 {
		t.Fatalf("exit code %d: %s", code, trouble)
	}
	s.run("--keystore", uri, "send", s.url, "--server-key", s.path("server.pem"), "--data", "x")
	if said := s.command("enrollment", "verify"); !strings.Contains(said, " proven") || strings.Contains(said, "NOT") {
		t.Errorf("verified: %s", said)
	}
	if said := s.command("enrollment", "list", "--json"); !strings.Contains(said, "SERIALNUMBER=box-7") {
		t.Errorf("the record does not name the device: %s", said)
	}
}

// issued makes a certificate, which signs itself if parent is nil.
func issued(t *testing.T, template, parent *x509.Certificate, signer *ecdsa.PrivateKey, key any) *x509.Certificate {
	t.Helper()
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(7), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// provideIAK makes an initial attestation key as the maker of a device does.
func provideIAK(t *testing.T, p *tpmtest.TPM, root *x509.Certificate, signer *ecdsa.PrivateKey) {
	t.Helper()
	conn, err := p.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	chip := transport.FromReadWriter(conn)
	template := tpm2.ECCSRKTemplate
	template.ObjectAttributes.Decrypt, template.ObjectAttributes.SignEncrypt = false, true
	template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull}, CurveID: tpm2.TPMECCNistP256,
		Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
	})
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(chip)
	if err != nil {
		t.Fatal(err)
	}
	area, err := made.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Pub(*area)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: 0x81020001,
	}.Execute(chip)
	if err != nil {
		t.Fatal(err)
	}
	c := issued(t, &x509.Certificate{Subject: pkix.Name{SerialNumber: "box-7"}, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}}}, root, signer, public)
	defineNV(t, chip, 0x01c90001, len(c.Raw), c.Raw)
}
