package enroll

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// saltedPath finds a way to a root on which a signature is not one for the standard library
// (see [proof.SaltedBy]). It goes up from a certificate, by authorities whose own issuers are
// respelled, until the standard library finds the rest of the way. Without such a signature
// there is no way, and no error.
func (e *EKCertificate) saltedPath(authorities []*x509.Certificate, options x509.VerifyOptions) (found []*x509.Certificate, err error) {
	const longest = 8
	chain, salted := []*x509.Certificate{e.Certificate}, false
	for len(chain) < longest {
		var signers []*x509.Certificate
		for _, a := range authorities {
			if below := chain[len(chain)-1]; signedBy(below, a) {
				signers, salted = append(signers, a), salted || proof.SaltedBy(below, a)
			}
		}
		if len(signers) == 0 {
			return nil, err
		}
		for _, a := range signers {
			if upper, e := a.Verify(options); e == nil && salted {
				if found, err = checkClimbed(chain, upper[0], options); err == nil {
					return found, nil
				}
			}
		}
		chain = append(chain, signers[0])
	}
	return nil, err
}

// signedBy reports whether an authority signed a certificate, with any salt.
func signedBy(c, authority *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, authority.RawSubject) &&
		(proof.SaltedBy(c, authority) || authority.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil)
}

// checkClimbed checks of a way what the standard library did not, which verified the upper part
// of it: all but the signatures below (RFC 5280 section 6.1). It returns the way.
func checkClimbed(below, upper []*x509.Certificate, options x509.VerifyOptions) ([]*x509.Certificate, error) {
	for _, c := range below {
		if options.CurrentTime.Before(c.NotBefore) || options.CurrentTime.After(c.NotAfter) {
			return nil, x509.CertificateInvalidError{Cert: c, Reason: x509.Expired}
		}
		if len(c.UnhandledCriticalExtensions) > 0 {
			return nil, x509.UnhandledCriticalExtension{}
		}
	}
	chain := slices.Concat(below, upper)
	for i, a := range chain[1:] {
		switch {
		case a.Version == 3 && !a.BasicConstraintsValid, a.BasicConstraintsValid && !a.IsCA,
			a.KeyUsage != 0 && a.KeyUsage&x509.KeyUsageCertSign == 0:
			return nil, x509.CertificateInvalidError{Cert: a, Reason: x509.NotAuthorizedToSign}
		case a.BasicConstraintsValid && a.MaxPathLen >= 0 && i > a.MaxPathLen:
			return nil, x509.CertificateInvalidError{Cert: a, Reason: x509.TooManyIntermediates}
		case slices.ContainsFunc(a.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 30}) }): // which are not compared here
			return nil, x509.CertificateInvalidError{Cert: a, Reason: x509.CANotAuthorizedForThisName}
		}
	}
	return chain, nil
}
