package enroll

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// skew is how far the clock of a device may be behind: certificates are backdated by it.
const skew = 5 * time.Minute

// NewCA makes a self-signed certificate for the key of an authority, with a name of 1 to
// 64 bytes. It is only for device certificates and revocation lists (path length 0).
func NewCA(key crypto.Signer, name string, from time.Time, validity time.Duration) (*x509.Certificate, error) {
	if name == "" || len(name) > 64 || validity <= 0 {
		return nil, fmt.Errorf("enroll: a CA needs a name of 1 to 64 bytes and a validity period")
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: name},
		NotBefore: from.Add(-skew), NotAfter: from.Add(validity),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("enroll: CA certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// newSerial returns a serial number of 127 random bits (RFC 5280 section 4.1.2.2: positive, at most 20
// bytes).
func newSerial() *big.Int {
	b := random(16)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

func serialText(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

func checkCA(c *x509.Certificate, key crypto.Signer, now time.Time) error {
	switch {
	case key == nil || !keystore.SamePublic(c.PublicKey, key.Public()):
		return fmt.Errorf("enroll: %w: it does not match the key", ErrCA)
	case !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 || c.KeyUsage&x509.KeyUsageCRLSign == 0:
		return fmt.Errorf("enroll: %w: it is not for issuing certificates and revocation lists", ErrCA)
	case len(c.SubjectKeyId) == 0:
		return fmt.Errorf("enroll: %w: it has no subject key identifier, so it cannot sign revocation lists", ErrCA)
	case now.After(c.NotAfter):
		return fmt.Errorf("enroll: %w: it has expired", ErrCA)
	}
	return nil
}

// An issuer is the CA of an authority.
type issuer struct {
	certificate *x509.Certificate
	key         crypto.Signer
	validity    time.Duration // of certificates
	crlLife     time.Duration // of revocation lists
}

// issue adds a certificate for a key to a record. Its subject is the record's name, and
// it is only for client authentication.
func (c *issuer) issue(r *Record, k proof.Public, now time.Time) error {
	until := now.Add(c.validity)
	if until.After(c.certificate.NotAfter) {
		until = c.certificate.NotAfter
	}
	if !until.After(now) {
		return fmt.Errorf("enroll: the certificate of the CA has expired")
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: r.Name},
		NotBefore: now.Add(-skew), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.certificate, k.Key, c.key)
	if err != nil {
		return fmt.Errorf("enroll: issue a certificate: %w", err)
	}
	r.Certificates = append(r.Certificates, Certificate{
		Serial: template.SerialNumber.Text(16), DER: der, Name: r.Name, Key: k.Name, Expires: until,
	})
	return nil
}

// fresh reports whether a certificate is valid, and at least a third of its life is left.
func fresh(c *Certificate, now time.Time) bool {
	x, err := x509.ParseCertificate(c.DER)
	return err == nil && !now.Before(x.NotBefore) && now.Before(x.NotAfter.Add(-x.NotAfter.Sub(x.NotBefore)/3))
}

// list signs a list of revoked certificates.
func (c *issuer) list(revoked []x509.RevocationListEntry, now time.Time) ([]byte, error) {
	list := &x509.RevocationList{
		Number: big.NewInt(now.UnixNano()), ThisUpdate: now.Add(-skew), NextUpdate: now.Add(c.crlLife),
		RevokedCertificateEntries: revoked,
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, c.certificate, c.key)
	if err != nil {
		return nil, fmt.Errorf("enroll: revocation list: %w", err)
	}
	return der, nil
}
