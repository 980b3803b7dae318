package enroll

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An EKCertificate is the statement of a manufacturer that an EK is in one of its TPMs
// (TCG EK Credential Profile).
type EKCertificate struct {
	*x509.Certificate
	Manufacturer string // as "id:53544D20", the vendor's code in hexadecimal
	Model        string
	Firmware     string
}

// ParseEKCertificate reads a certificate in DER or PEM, possibly with the header and the
// padding that it has in a TPM. It reads what manufacturers issued, even if it deviates
// from RFC 5280. Its subject alternative name, which is critical if the subject is empty,
// or else its subject, names the manufacturer and model of the TPM; the standard library
// does not support that form of name. A malformed certificate, or one that does not say
// that it is for a TPM, or is for another use, is [ErrEKCertificate].
func ParseEKCertificate(data []byte) (EKCertificate, error) {
	e, err := readCertificate(data)
	if err != nil {
		return e, err
	}
	named := false
	for _, x := range e.Extensions {
		named = named || x.Id.Equal(subjectAltName()) && e.readName(x.Value)
	}
	if named || e.readAttributes(e.RawSubject, 0) {
		e.understand(subjectAltName())
	}
	return e, e.checkUsage()
}

// readCertificate reads a manufacturer's certificate for an EK or a device.
func readCertificate(data []byte) (e EKCertificate, err error) {
	if found := proof.Certificates(data); len(found) > 0 {
		data = found[0]
	}
	if e.Certificate, err = proof.ParseCertificate(data); err != nil {
		return e, proof.Fail(ErrEKCertificate, "%w", err)
	}
	e.understand(directoryAttributes())
	return e, nil
}

// understand removes an extension from the unknown critical ones.
func (e *EKCertificate) understand(id asn1.ObjectIdentifier) {
	e.UnhandledCriticalExtensions = slices.DeleteFunc(e.UnhandledCriticalExtensions, id.Equal)
}

func subjectAltName() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }

// directoryAttributes is the extension with the version of the TPM specification and the
// evaluation of the TPM (TCG EK Credential Profile).
func directoryAttributes() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 9} }

// checkUsage refuses a certificate that is not for an EK (TCG EK Credential Profile,
// sections 3.2.8, 3.2.9 and 3.2.15).
func (e *EKCertificate) checkUsage() error {
	usages := len(e.ExtKeyUsage) + len(e.UnknownExtKeyUsage)
	forAny := slices.Contains(e.ExtKeyUsage, x509.ExtKeyUsageAny) ||
		slices.ContainsFunc(e.UnknownExtKeyUsage, asn1.ObjectIdentifier{2, 5, 29, 37, 0}.Equal)
	forEK := slices.ContainsFunc(e.UnknownExtKeyUsage, asn1.ObjectIdentifier{2, 23, 133, 8, 1}.Equal)
	switch {
	case e.IsCA:
		return proof.Fail(ErrEKCertificate, "it is a CA certificate")
	case usages > 0 && !forEK && !forAny:
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
	if !keystore.SamePublic(e.PublicKey, o.EK.Key) {
		return proof.Fail(ErrEKCertificate, "it is for another EK")
	}
	return nil
}
