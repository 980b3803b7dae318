// Package makers contains the certificates with which TPM manufacturers issue endorsement
// key certificates. The README of this directory says where they come from.
package makers

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/hex"
	"encoding/pem"
	"time"
)

//go:embed makers.pem
var text []byte

// PEM returns all certificates.
func PEM() []byte { return bytes.Clone(text) }

// A Certificate describes one of them for an operator.
type Certificate struct {
	Name      string    `json:"name"` // common name; Intel's is that of its site
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"` // the subject, for a root
	Root      bool      `json:"root"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	SHA256    string    `json:"sha256"` // of the certificate in DER, hexadecimal
}

// List returns all certificates, by manufacturer.
func List() ([]Certificate, error) {
	var all []Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(c.Raw)
		all = append(all, Certificate{
			Name: c.Subject.CommonName, Subject: c.Subject.String(), Issuer: c.Issuer.String(),
			Root:      bytes.Equal(c.RawSubject, c.RawIssuer),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, SHA256: hex.EncodeToString(sum[:]),
		})
	}
	return all, nil
}
