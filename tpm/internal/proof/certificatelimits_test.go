package proof

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"math/big"
	"testing"
)

// TestRepeatedExtensions bounds the work for a certificate of a stranger with an extension many
// times: that for each is about as much as for one that says nothing.
func TestRepeatedExtensions(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	work := func(last int) float64 {
		x := pkix.Extension{Id: stdasn1.ObjectIdentifier{2, 5, 29, last}, Value: []byte{0x30, 5, 0x30, 3, 6, 1, 0x2a}}
		template := &x509.Certificate{SerialNumber: big.NewInt(1)}
		for range 500 {
			template.ExtraExtensions = append(template.ExtraExtensions, x)
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return testing.AllocsPerRun(1, func() {
			if _, err := parseOdd(der); err != nil {
				t.Error(err)
			}
		})
	}
	const keyID, policies = 14, 32
	if least, got := work(keyID), work(policies); got > 2*least {
		t.Errorf("%.0f allocations for policies, %.0f for key identifiers", got, least)
	}
}
