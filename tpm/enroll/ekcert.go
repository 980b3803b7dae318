package enroll

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An EKCertificate is the statement of a manufacturer that an EK is in one of its TPMs
// (TCG EK Credential Profile, section 3).
type EKCertificate struct {
	*x509.Certificate
	Manufacturer string // as "id:53544D20", the vendor's code in hexadecimal
	Model        string
	Firmware     string
}

// ParseEKCertificate reads a certificate in DER. Its subject alternative name, which is
// critical if the subject is empty, names the manufacturer and model of the TPM; the
// standard library does not support that form of name. Errors are [ErrEKCertificate].
func ParseEKCertificate(der []byte) (EKCertificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return EKCertificate{}, proof.Fail(ErrEKCertificate, "%w", err)
	}
	e := EKCertificate{Certificate: c}
	for _, x := range c.Extensions {
		if !x.Id.Equal(subjectAltName()) {
			continue
		}
		if err := e.readName(x.Value); err != nil {
			return EKCertificate{}, proof.Fail(ErrEKCertificate, "subject alternative name: %w", err)
		}
		if e.Manufacturer != "" {
			c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, subjectAltName().Equal)
		}
	}
	return e, e.checkUsage()
}

func subjectAltName() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }

// readName reads GeneralNames (RFC 5280 section 4.2.1.6) for a directory name
// with the attributes of a TPM.
func (e *EKCertificate) readName(der []byte) error {
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 {
		return fmt.Errorf("malformed")
	}
	const directoryName = 4
	for _, n := range names {
		if n.Class != asn1.ClassContextSpecific || n.Tag != directoryName {
			continue
		}
		var rdns pkix.RDNSequence
		if rest, err := asn1.Unmarshal(n.Bytes, &rdns); err != nil || len(rest) > 0 {
			return fmt.Errorf("malformed directory name")
		}
		e.readAttributes(rdns)
	}
	return nil
}

func (e *EKCertificate) readAttributes(rdns pkix.RDNSequence) {
	for _, set := range rdns {
		for _, a := range set {
			value, _ := a.Value.(string)
			value = proof.Shorten(value)
			switch a.Type.String() {
			case "2.23.133.2.1":
				e.Manufacturer = value
			case "2.23.133.2.2":
				e.Model = value
			case "2.23.133.2.3":
				e.Firmware = value
			}
		}
	}
}

// checkUsage refuses a certificate that is not for an EK.
func (e *EKCertificate) checkUsage() error {
	if e.IsCA {
		return proof.Fail(ErrEKCertificate, "it is the certificate of an authority")
	}
	restricted := len(e.ExtKeyUsage)+len(e.UnknownExtKeyUsage) > 0
	forEK := asn1.ObjectIdentifier{2, 23, 133, 8, 1}
	if restricted && !slices.ContainsFunc(e.UnknownExtKeyUsage, forEK.Equal) {
		return proof.Fail(ErrEKCertificate, "its extended key usage is not that of an EK")
	}
	return nil
}

// checkCertificateKey refuses a certificate that is for another EK. No policy can accept
// that, since device and certificate contradict each other.
func checkCertificateKey(o *proof.Offered, b *proof.Begin) error {
	if len(b.EKCertificates) == 0 {
		return nil
	}
	e, err := ParseEKCertificate(b.EKCertificates[0])
	if err != nil {
		return err
	}
	if !proof.SameKey(e.PublicKey, o.EK.Key) {
		return proof.Fail(ErrEKCertificate, "it is for another EK")
	}
	return nil
}

// A Bundle is the certificates of trusted manufacturers of TPMs.
type Bundle struct {
	Roots         *x509.CertPool
	Intermediates *x509.CertPool
}

// ParseBundle reads certificates in PEM. Those that are their own issuer are roots, the
// others are intermediates. At least one root is required.
func ParseBundle(text []byte) (Bundle, error) {
	b := Bundle{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	roots := 0
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			return Bundle{}, fmt.Errorf("enroll: EK bundle: a %q where only certificates may be", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return Bundle{}, fmt.Errorf("enroll: EK bundle: %w", err)
		}
		if string(c.RawIssuer) == string(c.RawSubject) {
			b.Roots.AddCert(c)
			roots++
		} else {
			b.Intermediates.AddCert(c)
		}
	}
	if roots == 0 {
		return Bundle{}, fmt.Errorf("enroll: EK bundle: it has no root certificate")
	}
	return b, nil
}

// verify finds a path from the first certificate, that of the EK, to a root (RFC 5280
// section 6), and returns it. The other certificates may help to find it.
func (b Bundle) verify(certificates [][]byte, now time.Time) (EKCertificate, [][]byte, error) {
	intermediates := x509.NewCertPool()
	if b.Intermediates != nil {
		intermediates = b.Intermediates.Clone()
	}
	e, chains, err := paths(certificates, b.Roots, intermediates, now)
	if err != nil {
		return e, nil, err
	}
	return e, rawChain(chains[0]), nil
}

func paths(certificates [][]byte, roots, intermediates *x509.CertPool, now time.Time) (EKCertificate, [][]*x509.Certificate, error) {
	if roots == nil { // the standard library would take those of the system
		return EKCertificate{}, nil, proof.Fail(ErrEKCertificate, "no roots are configured")
	}
	e, err := ParseEKCertificate(certificates[0])
	if err != nil {
		return e, nil, err
	}
	for _, der := range certificates[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return e, nil, proof.Fail(ErrEKCertificate, "a certificate above it: %w", err)
		}
		intermediates.AddCert(c)
	}
	chains, err := e.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return e, nil, proof.Fail(ErrEKCertificate, "%w", err)
	}
	return e, chains, nil
}

func rawChain(chain []*x509.Certificate) [][]byte {
	raw := make([][]byte, len(chain))
	for i, c := range chain {
		raw[i] = c.Raw
	}
	return raw
}
