package enroll

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/msl-hsm/msl-hsm/internal/strictpem"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Bundle has the certificates of trusted TPM manufacturers.
type Bundle struct {
	Roots         *x509.CertPool
	Intermediates *x509.CertPool

	known names               // of both, set by ParseBundle
	all   []*x509.Certificate // respelled
}

// ParseBundle reads certificates in PEM or DER. Self-issued certificates are roots, the
// others intermediates. At least one root is required.
func ParseBundle(texts ...[]byte) (Bundle, error) {
	var all []*x509.Certificate
	for _, text := range texts {
		some, err := bundled(text)
		if err != nil {
			return Bundle{}, fmt.Errorf("enroll: EK bundle: %w", err)
		}
		all = append(all, some...)
	}
	b := Bundle{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), known: namesOf(all)}
	for _, c := range all {
		if sameWritten(c.RawIssuer, c.RawSubject) {
			b.Roots.AddCert(c)
		} else {
			c = respelled(c, b.known)
			b.Intermediates.AddCert(c)
		}
		b.all = append(b.all, c)
	}
	if b.Roots.Equal(x509.NewCertPool()) {
		return Bundle{}, fmt.Errorf("enroll: EK bundle: it has no root certificate")
	}
	return b, nil
}

// bundled reads all certificates of a file. A damaged block, or one of another kind, is
// an error.
func bundled(text []byte) (all []*x509.Certificate, err error) {
	if !strictpem.Is(text) {
		return fromDER(text)
	}
	blocks, err := strictpem.Decode(text)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if b.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("line %d: a PEM block %q, but only certificates are allowed", b.Line, proof.Shorten(b.Type))
		}
		c, err := proof.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", b.Line, err)
		}
		all = append(all, c)
	}
	return all, nil
}

// fromDER reads consecutive certificates, up to white space that an editor may have
// added. The last byte of a certificate may look like white space, so only its own length
// determines where it ends.
func fromDER(in cryptobyte.String) (all []*x509.Certificate, err error) {
	for len(bytes.TrimSpace(in)) > 0 {
		var der cryptobyte.String
		if !in.ReadASN1Element(&der, tags.SEQUENCE) {
			return nil, errors.New("malformed certificate")
		}
		c, err := proof.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// A path leads from the certificate of an EK to a trusted root.
type path struct {
	chain [][]byte  // DER, the EK's own first
	at    time.Time // when all of it was valid, if part of it has expired since then
}

// certified reports whether there is a currently valid path.
func (p path) certified() bool { return p.chain != nil && p.at.IsZero() }

// expired reports whether there is a path that has expired.
func (p path) expired() bool { return p.chain != nil && !p.at.IsZero() }

// verify finds a path from the certificate of an EK to a root (RFC 5280 section 6), with
// the help of the certificates above it. If there is none now, but there was one at the
// first or last moment of the certificate's validity, or at the last moment of its issuer's,
// that certificate or one above it has expired.
func (b Bundle) verify(e EKCertificate, above [][]byte, now time.Time) (path, error) {
	intermediates := x509.NewCertPool()
	if b.Intermediates != nil {
		intermediates = b.Intermediates.Clone()
	}
	var authorities []*x509.Certificate
	for _, der := range above {
		if c, err := proof.ParseCertificate(der); err == nil { // others cannot help
			authorities = append(authorities, c)
		}
	}
	offered := namesOf(authorities)
	for i, c := range authorities {
		authorities[i] = respelled(c, b.known, offered)
		intermediates.AddCert(authorities[i])
	}
	authorities = slices.Concat(b.all, authorities)
	e.Certificate = respelled(e.Certificate, b.known, offered)
	chains, err := e.paths(b.Roots, intermediates, authorities, now)
	if err == nil {
		return path{chain: rawChain(chains[0])}, nil
	}
	for _, at := range moments(e.Certificate, authorities, now) {
		if chains, err = e.paths(b.Roots, intermediates, authorities, at); err == nil {
			return path{chain: rawChain(chains[0]), at: at}, nil
		} // otherwise something worse than its age is wrong
	}
	return path{}, err
}

// moments returns times before now at which a path may have existed: makers renew
// certificates of authorities, and some backdate those of endorsement keys.
func moments(c *x509.Certificate, authorities []*x509.Certificate, now time.Time) []time.Time {
	const most = 8 // each costs a search
	all := []time.Time{c.NotAfter, c.NotBefore}
	for _, a := range authorities {
		if bytes.Equal(a.RawSubject, c.RawIssuer) {
			all = append(all, a.NotAfter)
		}
	}
	all = slices.DeleteFunc(all, func(at time.Time) bool { return !at.Before(now) })
	return all[:min(len(all), most)]
}

// paths finds paths to roots. authorities are all known intermediates, and the known roots.
func (e *EKCertificate) paths(roots, intermediates *x509.CertPool, authorities []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	if roots == nil { // otherwise the standard library would use the system's
		return nil, proof.Fail(ErrEKCertificate, "no roots are configured")
	}
	options := x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	chains, err := e.Verify(options)
	if err != nil {
		chain, errSalted := e.saltedPath(authorities, options)
		if chain != nil {
			return [][]*x509.Certificate{chain}, nil
		}
		err = cmp.Or(errSalted, err)
	}
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		name, url := e.issuer()
		return nil, proof.Fail(ErrEKCertificate, "%w: issuer %s", err, strings.TrimSuffix(name+", "+url, ", "))
	case err != nil:
		return nil, proof.Fail(ErrEKCertificate, "%w", err)
	}
	return chains, nil
}

// issuer returns the issuer of the certificate, and the URL it gives for the issuer's
// own. Both are empty without a certificate.
func (e *EKCertificate) issuer() (name, url string) {
	if e.Certificate == nil {
		return "", ""
	}
	name = writtenName(e.RawIssuer)
	if len(e.IssuingCertificateURL) > 0 {
		url = proof.Shorten(e.IssuingCertificateURL[0])
	}
	return name, url
}

// writtenName returns a Name as text, shortened for display.
func writtenName(der []byte) string {
	name, err := proof.ParseName(der)
	if err != nil {
		return "unreadable"
	}
	return proof.Shorten(name.String())
}

func rawChain(chain []*x509.Certificate) [][]byte {
	raw := make([][]byte, len(chain))
	for i, c := range chain {
		raw[i] = c.Raw
	}
	return raw
}
