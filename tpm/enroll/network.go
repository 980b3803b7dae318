package enroll

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A network is the certificates of authorities, among which paths are looked for.
type network struct {
	roots, between *x509.CertPool
	all            []*x509.Certificate // those of both pools that are known
}

// longestPath is how many certificates of a path are looked at, where the standard library
// does not.
const longestPath = 8

func newNetwork() *network {
	return &network{roots: x509.NewCertPool(), between: x509.NewCertPool()}
}

// offer adds an intermediate certificate.
func (n *network) offer(c *x509.Certificate) {
	n.between.AddCert(c)
	n.all = append(n.all, c)
}

// paths finds paths to roots that are valid at a time.
func (n *network) paths(c *x509.Certificate, at time.Time) ([][]*x509.Certificate, error) {
	options := x509.VerifyOptions{
		Roots: n.roots, Intermediates: n.between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	chains, err := c.Verify(options)
	if err == nil {
		return chains, nil
	}
	climb := saltedClimb{network: n, options: options, left: mostClimbed}
	if chain := climb.from([]*x509.Certificate{c}, false); chain != nil {
		return [][]*x509.Certificate{chain}, nil
	}
	if climb.err != nil {
		err = climb.err
	}
	return nil, n.explained(c, err)
}

// explained returns why there is no path, with what the standard library does not say.
func (n *network) explained(c *x509.Certificate, err error) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Cert != nil && !invalid.Cert.Equal(c):
		return proof.Fail(ErrEKCertificate, "the certificate of %s: %w", writtenName(spelled(invalid.Cert).RawSubject), err)
	case errors.As(err, &unknown):
		return proof.Fail(ErrEKCertificate, "%w: issuer %s%s", err, issuerOf(unknown.Cert), n.obstacle(c))
	case errors.As(err, new(x509.UnhandledCriticalExtension)):
		return proof.Fail(ErrEKCertificate, "%w%s", err, cmp.Or(unsupported("it", c), n.obstacle(c)))
	}
	return proof.Fail(ErrEKCertificate, "%w", err)
}

// expired reports whether an error is about the age of a certificate.
func expired(err error) bool {
	var invalid x509.CertificateInvalidError
	return errors.As(err, &invalid) && invalid.Reason == x509.Expired
}

// issuerOf names the issuer of a certificate, as the certificate does.
func issuerOf(c *x509.Certificate) string {
	e := EKCertificate{Certificate: spelled(c)}
	name, url := e.issuer()
	return strings.TrimSuffix(name+", "+url, ", ")
}

// spelled undoes plainly.
func spelled(c *x509.Certificate) *x509.Certificate {
	if again, err := proof.ParseCertificate(c.Raw); err == nil {
		return again
	}
	return c
}

// obstacle follows the names of issuers upwards, and returns what is not supported in their
// certificates, or "".
func (n *network) obstacle(c *x509.Certificate) string {
	for range longestPath {
		above := c
		for _, a := range n.all {
			if !bytes.Equal(a.RawSubject, c.RawIssuer) {
				continue
			}
			if c.SignatureAlgorithm == x509.UnknownSignatureAlgorithm && !proof.SaltedBy(c, a) {
				return "; " + proof.SignatureProblem(c)
			}
			if len(a.UnhandledCriticalExtensions) > 0 {
				return unsupported("the certificate of "+writtenName(spelled(a).RawSubject), a)
			}
			above = a
		}
		if c = above; bytes.Equal(c.RawIssuer, c.RawSubject) {
			break
		}
	}
	return ""
}

// unsupported names the extensions with which a certificate does not verify.
func unsupported(whose string, c *x509.Certificate) string {
	var all []string
	for _, id := range c.UnhandledCriticalExtensions {
		all = append(all, id.String())
	}
	if len(all) == 0 {
		return ""
	}
	return "; " + whose + " has the extension " + strings.Join(all, ", ") + ", which is not supported"
}

// moments returns times before now at which a path may have existed: makers renew
// certificates of authorities, and some backdate those of endorsement keys.
func (n *network) moments(c *x509.Certificate, now time.Time) []time.Time {
	const most = 8 // each costs a search
	all := []time.Time{c.NotAfter, c.NotBefore}
	for _, a := range n.all {
		if bytes.Equal(a.RawSubject, c.RawIssuer) {
			all = append(all, a.NotAfter)
		}
	}
	all = slices.DeleteFunc(all, func(at time.Time) bool { return !at.Before(now) })
	return all[:min(len(all), most)]
}
