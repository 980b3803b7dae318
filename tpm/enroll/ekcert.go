package enroll

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
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

// ParseEKCertificate reads a certificate in DER or PEM, which may have the header and the
// padding that it has in a TPM. It reads what makers issued, even if that is not quite as
// RFC 5280 has it. Its subject alternative name, which is critical if the subject is empty,
// names the manufacturer and model of the TPM; the standard library does not support that
// form of name. A certificate that does not say that it is of a TPM, or is for another use,
// is an error like a malformed one: [ErrEKCertificate].
func ParseEKCertificate(data []byte) (EKCertificate, error) {
	if found := proof.Certificates(data); len(found) > 0 {
		data = found[0]
	}
	c, err := proof.ParseCertificate(data)
	if err != nil {
		return EKCertificate{}, proof.Fail(ErrEKCertificate, "%w", err)
	}
	e := EKCertificate{Certificate: c}
	understood := []asn1.ObjectIdentifier{directoryAttributes()}
	for _, x := range c.Extensions {
		if x.Id.Equal(subjectAltName()) && e.readName(x.Value) {
			understood = append(understood, x.Id)
		}
	}
	c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool {
		return slices.ContainsFunc(understood, id.Equal)
	})
	return e, e.checkUsage()
}

func subjectAltName() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }

// directoryAttributes is the extension that tells the version of the TPM specification
// and how the TPM was evaluated (TCG EK Credential Profile, section 3.2.10).
func directoryAttributes() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 9} }

// checkUsage refuses a certificate that is not for an EK (TCG EK Credential Profile,
// sections 3.2.8, 3.2.9 and 3.2.15).
func (e *EKCertificate) checkUsage() error {
	usages := len(e.ExtKeyUsage) + len(e.UnknownExtKeyUsage)
	forEK := slices.ContainsFunc(e.UnknownExtKeyUsage, asn1.ObjectIdentifier{2, 23, 133, 8, 1}.Equal)
	switch {
	case e.IsCA:
		return proof.Fail(ErrEKCertificate, "it is the certificate of an authority")
	case usages > 0 && !forEK:
		return proof.Fail(ErrEKCertificate, "its extended key usage is not that of an EK")
	case !forEK && e.Manufacturer == "":
		return proof.Fail(ErrEKCertificate, "it does not say that it is of a TPM")
	case e.KeyUsage != 0 && e.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement) == 0:
		return proof.Fail(ErrEKCertificate, "its key usage is not that of an EK")
	}
	return nil
}

// checkKey refuses a certificate that is for another EK.
func (e *EKCertificate) checkKey(o *proof.Offered) error {
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

// A path is the way from the certificate of an EK to a trusted root.
type path struct {
	chain [][]byte  // DER, the EK's own first
	at    time.Time // when all of it was valid, if the time of a part has run out since
}

// verify finds a path from the certificate of an EK to a root (RFC 5280 section 6). The
// certificates above it may help to find it. If there is none now, but there was one at the
// first or the last moment of the certificate, the time of it or of one above has run out.
func (b Bundle) verify(e EKCertificate, above [][]byte, now time.Time) (path, error) {
	intermediates := x509.NewCertPool()
	if b.Intermediates != nil {
		intermediates = b.Intermediates.Clone()
	}
	for _, der := range above {
		if c, err := x509.ParseCertificate(der); err == nil { // others cannot help
			intermediates.AddCert(c)
		}
	}
	chains, err := e.paths(b.Roots, intermediates, now)
	if err == nil {
		return path{chain: rawChain(chains[0])}, nil
	}
	for _, at := range []time.Time{e.NotAfter, e.NotBefore} {
		if chains, then := e.paths(b.Roots, intermediates, at); then == nil && at.Before(now) {
			return path{chain: rawChain(chains[0]), at: at}, nil
		}
	}
	return path{}, err
}

func (e *EKCertificate) paths(roots, intermediates *x509.CertPool, now time.Time) ([][]*x509.Certificate, error) {
	if roots == nil { // the standard library would take those of the system
		return nil, proof.Fail(ErrEKCertificate, "no roots are configured")
	}
	chains, err := e.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return nil, proof.Fail(ErrEKCertificate, "%w: %s", err, e.issuer())
	case err != nil:
		return nil, proof.Fail(ErrEKCertificate, "%w", err)
	}
	return chains, nil
}

// issuer tells who issued the certificate, and where it says that the issuer's own is.
func (e *EKCertificate) issuer() string {
	text := "issuer unreadable"
	var names pkix.RDNSequence
	if _, err := asn1.Unmarshal(e.RawIssuer, &names); err == nil {
		text = "issuer " + proof.Shorten(names.String())
	}
	if len(e.IssuingCertificateURL) > 0 {
		text += ", " + proof.Shorten(e.IssuingCertificateURL[0])
	}
	return text
}

func rawChain(chain []*x509.Certificate) [][]byte {
	raw := make([][]byte, len(chain))
	for i, c := range chain {
		raw[i] = c.Raw
	}
	return raw
}
