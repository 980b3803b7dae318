package enroll

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A saltedClimb finds a way to a root on which a signature is not one for the standard
// library (see [proof.SaltedBy]). It goes up from a certificate until the standard library
// finds the rest of the way. Without such a signature there is no way, and no error.
type saltedClimb struct {
	*network
	options x509.VerifyOptions
	left    int   // signatures that it may still verify
	err     error // why a way that it found is not valid
}

// mostClimbed bounds what the certificates of one device cost.
const mostClimbed = 64

// from finds the way that begins with a chain. salted says whether it has such a signature.
func (s *saltedClimb) from(chain []*x509.Certificate, salted bool) []*x509.Certificate {
	below := chain[len(chain)-1]
	for _, a := range s.all {
		again := func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, a.Raw) }
		if !bytes.Equal(below.RawIssuer, a.RawSubject) || slices.ContainsFunc(chain, again) || len(chain) == longestPath || s.left == 0 {
			continue
		}
		s.left--
		bySalt := proof.SaltedBy(below, a)
		if !bySalt && a.CheckSignature(below.SignatureAlgorithm, below.RawTBSCertificate, below.Signature) != nil {
			continue
		}
		if found := s.over(chain, a, salted || bySalt); found != nil {
			return found
		}
	}
	return nil
}

// over finds the way that begins with a chain and leads over an authority that signed its
// last certificate.
func (s *saltedClimb) over(chain []*x509.Certificate, a *x509.Certificate, salted bool) []*x509.Certificate {
	if salted {
		upper, _ := a.Verify(s.options)
		for _, u := range upper {
			found, err := checkClimbed(chain, u, s.options)
			if err == nil {
				return found
			}
			s.err = err
		}
	}
	return s.from(append(slices.Clip(chain), a), salted)
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
	for _, c := range chain[:len(chain)-1] {
		if c.RequireExplicitPolicy > 0 || c.RequireExplicitPolicyZero {
			return nil, errors.New("a certificate requires policies, which is not supported above or below such an RSA-PSS signature")
		}
	}
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
