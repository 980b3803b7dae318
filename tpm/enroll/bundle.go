package enroll

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/msl-hsm/msl-hsm/internal/strictpem"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Bundle is the certificates of trusted manufacturers of TPMs.
type Bundle struct {
	Roots         *x509.CertPool
	Intermediates *x509.CertPool

	known names // of both, by ParseBundle
}

// ParseBundle reads certificates in PEM or DER. Those that are their own issuer are roots,
// the others are intermediates. At least one root is required.
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
			b.Intermediates.AddCert(respelled(c, b.known))
		}
	}
	if b.Roots.Equal(x509.NewCertPool()) {
		return Bundle{}, fmt.Errorf("enroll: EK bundle: it has no root certificate")
	}
	return b, nil
}

// bundled reads all certificates of a file. A block that is damaged, or of another kind, is
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

// fromDER reads certificates one after another, up to the white space that an editor may
// have added. The last byte of a certificate may look like that, so only its own length
// tells where it ends.
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

// A path is the way from the certificate of an EK to a trusted root.
type path struct {
	chain [][]byte  // DER, the EK's own first
	at    time.Time // when all of it was valid, if the time of a part has run out since
}

// certified reports whether there is a path that is valid now.
func (p path) certified() bool { return p.chain != nil && p.at.IsZero() }

// expired reports whether there is a path whose time has run out.
func (p path) expired() bool { return p.chain != nil && !p.at.IsZero() }

// verify finds a path from the certificate of an EK to a root (RFC 5280 section 6). The
// certificates above it may help to find it. If there is none now, but there was one at the
// first or the last moment of the certificate, the time of it or of one above has run out.
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
	for _, c := range authorities {
		intermediates.AddCert(respelled(c, b.known, offered))
	}
	e.Certificate = respelled(e.Certificate, b.known, offered)
	chains, err := e.paths(b.Roots, intermediates, now)
	if err == nil {
		return path{chain: rawChain(chains[0])}, nil
	}
	for _, at := range []time.Time{e.NotAfter, e.NotBefore} {
		if !at.Before(now) {
			continue
		}
		if chains, err = e.paths(b.Roots, intermediates, at); err == nil {
			return path{chain: rawChain(chains[0]), at: at}, nil
		} // else that is worse than its age
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
		name, url := e.issuer()
		return nil, proof.Fail(ErrEKCertificate, "%w: issuer %s", err, strings.TrimSuffix(name+", "+url, ", "))
	case err != nil:
		return nil, proof.Fail(ErrEKCertificate, "%w", err)
	}
	return chains, nil
}

// issuer returns who issued the certificate, and where it says that the issuer's own is.
// Both are empty without a certificate.
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

// writtenName returns a Name as text, shortened for people.
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
