package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// An oddMaker makes certificates as some makers do: a server that trusts its root reads them, or
// says why not.
type oddMaker struct {
	*testing.T
	key  *ecdsa.PrivateKey
	root *x509.Certificate
}

func newOddMaker(t *testing.T) *oddMaker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &oddMaker{T: t, key: key}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Odd maker"}, IsCA: true, BasicConstraintsValid: true}
	ca.NotBefore, ca.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if m.root, err = x509.ParseCertificate(m.issue(ca, ca, key.Public())); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *oddMaker) issue(c, by *x509.Certificate, key any) []byte {
	m.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, key, m.key)
	if err != nil {
		m.Fatal(err)
	}
	return der
}

// An oddity is what a maker did to a certificate, or to how the TPM keeps it, and what the record
// of the device says: the issuer of a certificate that admits it, or why it does not.
type oddity struct {
	certificate func(c *x509.Certificate)
	stored      func(der []byte) []byte
	says        string
}

func oddities() map[string]oddity {
	const trusted = `"issuer": "CN=Odd maker"`
	return map[string]oddity{
		"with a header": {stored: func(der []byte) []byte {
			return slices.Concat([]byte{0x10, 1, 0, byte(len(der) >> 8), byte(len(der)), 0x10, 2}, der)
		}, says: trusted},
		"padded with ff": {stored: func(der []byte) []byte { return append(der, bytes.Repeat([]byte{0xff}, 300)...) }, says: trusted},
		"padded with 00": {stored: func(der []byte) []byte { return append(der, make([]byte, 300)...) }, says: trusted},
		"in PEM":         {stored: func(der []byte) []byte { return enroll.PEM("CERTIFICATE", der) }, says: trusted},
		"cut off":        {stored: func(der []byte) []byte { return der[:len(der)-9] }, says: "its EK is unknown"},
		"with a critical extension": {certificate: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 9}, Critical: true, Value: []byte{0x30, 0}}}
		}, says: trusted},
		"of a long serial number": {certificate: func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 150) }, says: trusted},
		"expired":                 {certificate: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, says: "expired"},
		"not of a TPM":            {certificate: func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }, says: "it does not say that it is of a TPM"},
	}
}

// store gives the TPM a certificate for its EK with an oddity.
func (m *oddMaker) store(t *testing.T, chip transport.TPM, ek, odd string) {
	t.Helper()
	template, at := tpm2.RSAEKTemplate, tpm2.TPMHandle(0x01c00002)
	if ek == "p256" {
		template, at = tpm2.ECCEKTemplate, 0x01c0000a
	}
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(chip)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(chip) }()
	public, err := made.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "EK"}, KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	o := oddities()[odd]
	if o.certificate != nil {
		o.certificate(c)
	}
	der := m.issue(c, m.root, key)
	if o.stored != nil {
		der = o.stored(der)
	}
	defineNV(t, chip, at, len(der), der)
}

// oddCases are each chip with each odd certificate, and EKs and passwords that change from one to
// the next.
func oddCases() (list []fieldCase) {
	eks, words := []string{"rsa2048", "p256"}, []string{"", "o", "e", "l", "oe", "ol", "el", "oel"}
	for i, odd := range slices.Sorted(maps.Keys(oddities())) {
		for n, quirk := range slices.Sorted(maps.Keys(fieldQuirks())) {
			list = append(list, fieldCase{quirk, eks[(i+n)%2], words[(3*i+n)%len(words)], odd})
		}
	}
	return list
}

// recorded checks what the server says of an odd certificate.
func (f *fieldDevice) recorded() {
	f.Helper()
	o, odd := oddities()[f.c.certificate]
	if !odd {
		return
	}
	status := f.site.run(slices.Concat([]string{"tpm", "status", "--keystore", f.uri}, f.flags("oel"))...)
	record := f.site.command("enrollment", "show", strings.Fields(status)[2])
	var read map[string]any
	if err := json.Unmarshal([]byte(record), &read); err != nil {
		f.Fatal(err)
	}
	if delete(read, "evidence"); !strings.Contains(record, o.says) {
		text, _ := json.MarshalIndent(read, "", " ")
		f.Errorf("the record does not say %q: %s", o.says, text)
	}
}
