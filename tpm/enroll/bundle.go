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

	plain *network // of both, set by ParseBundle
}

// ParseBundle reads certificates in PEM or DER. Self-issued certificates of authorities are
// roots, the others intermediates. At least one root is required.
func ParseBundle(texts ...[]byte) (Bundle, error) {
	b := Bundle{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), plain: newNetwork()}
	for _, text := range texts {
		some, err := bundled(text)
		if err != nil {
			return Bundle{}, fmt.Errorf("enroll: certificates of makers: %w", err)
		}
		for _, c := range some {
			b.add(c)
		}
	}
	if b.Roots.Equal(x509.NewCertPool()) {
		return Bundle{}, fmt.Errorf("enroll: certificates of makers: it has no root certificate")
	}
	return b, nil
}

func (b *Bundle) add(c *x509.Certificate) {
	plain := plainly(c)
	if bytes.Equal(plain.RawIssuer, plain.RawSubject) && (plain.IsCA || !plain.BasicConstraintsValid) {
		b.Roots.AddCert(c)
		b.plain.roots.AddCert(plain)
	} else {
		b.Intermediates.AddCert(c)
		b.plain.between.AddCert(plain)
	}
	b.plain.all = append(b.plain.all, plain)
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
	n, c := b.network(), e.Certificate
	if b.plain != nil {
		c = plainly(c)
	}
	for _, der := range above {
		if a, err := proof.ParseCertificate(der); err == nil { // others cannot help
			if b.plain != nil {
				a = plainly(a)
			}
			n.offer(a)
		}
	}
	chains, err := n.paths(c, now)
	if err == nil {
		return path{chain: rawChain(chains[0])}, nil
	}
	for _, at := range n.moments(c, now) {
		chains, then := n.paths(c, at)
		if then == nil {
			return path{chain: rawChain(chains[0]), at: at}, nil
		}
		if !expired(then) { // something worse than its age is wrong
			err = then
		}
	}
	return path{}, err
}

// network returns the certificates of the bundle. In pools that ParseBundle did not make,
// names are as they are spelled.
func (b Bundle) network() *network {
	n := newNetwork()
	if b.plain != nil {
		n.roots, n.between, n.all = b.plain.roots, b.plain.between.Clone(), slices.Clip(b.plain.all)
		return n
	}
	n.roots = cmp.Or(b.Roots, n.roots) // nil would be the system's
	if b.Intermediates != nil {
		n.between = b.Intermediates.Clone()
	}
	return n
}

// issuer returns the issuer of the certificate, and the URL it gives for the issuer's
// own, one for HTTP if there is one. Both are empty without a certificate.
func (e *EKCertificate) issuer() (name, url string) {
	if e.Certificate == nil {
		return "", ""
	}
	name = writtenName(e.RawIssuer)
	if all := e.IssuingCertificateURL; len(all) > 0 {
		web := slices.IndexFunc(all, func(u string) bool { return strings.HasPrefix(strings.ToLower(u), "http") })
		url = proof.Shorten(all[max(web, 0)])
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
