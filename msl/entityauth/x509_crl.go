package entityauth

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/strictpem"
)

// A CRL is a certificate revocation list (RFC 5280 section 5) whose signature was
// verified.
type CRL struct {
	issuer     *x509.Certificate
	thisUpdate time.Time
	nextUpdate time.Time
	revoked    map[string]struct{} // serial numbers
}

// ParseCRL reads a complete revocation list, PEM or DER, of one of issuers. Lists that
// cover only some certificates are refused: a certificate missing from such a list may
// still be revoked.
func ParseCRL(data []byte, issuers ...*x509.Certificate) (*CRL, error) {
	der, err := crlFromPEM(data)
	if err != nil {
		return nil, fmt.Errorf("entityauth: revocation list: %w", err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("entityauth: revocation list: %w", err)
	}
	if err := checkComplete(list); err != nil {
		return nil, fmt.Errorf("entityauth: revocation list of %q: %w", list.Issuer, err)
	}
	issuer, err := issuerOf(list, issuers)
	if err != nil {
		return nil, fmt.Errorf("entityauth: revocation list of %q: %w", list.Issuer, err)
	}
	c := &CRL{issuer: issuer, thisUpdate: list.ThisUpdate, nextUpdate: list.NextUpdate, revoked: map[string]struct{}{}}
	for _, entry := range list.RevokedCertificateEntries {
		c.revoked[serialKey(entry.SerialNumber)] = struct{}{}
	}
	return c, nil
}

// crlFromPEM returns the one list in a PEM text, or data if it is not PEM. Two lists are
// an error: neither may be ignored.
func crlFromPEM(data []byte) ([]byte, error) {
	if !strictpem.Is(data) {
		return data, nil
	}
	blocks, err := strictpem.Decode(data)
	switch {
	case err != nil:
		return nil, err
	case len(blocks) != 1:
		return nil, fmt.Errorf("%d blocks of PEM where one is wanted", len(blocks))
	case blocks[0].Type != "X509 CRL":
		return nil, fmt.Errorf("PEM of a %q", blocks[0].Type)
	}
	return blocks[0].Bytes, nil
}

// CheckSuccession returns an error if some lists would undo revocations that others, which
// they replace, made known: each issuer of those must have a list that is not older.
func CheckSuccession(old, next []*CRL) error {
	for _, o := range old {
		var newest *CRL
		for _, n := range next {
			if n.SpeaksFor(o.issuer) && (newest == nil || n.thisUpdate.After(newest.thisUpdate)) {
				newest = n
			}
		}
		switch {
		case newest == nil:
			return fmt.Errorf("revocation list of %q is in use, but missing in the file: add it, or restart to continue without it", o.issuer.Subject)
		case newest.thisUpdate.Before(o.thisUpdate):
			return fmt.Errorf("revocation list of %q is dated %v, older than the one in use, dated %v: get the newest, or restart to use it", o.issuer.Subject, newest.thisUpdate.UTC(), o.thisUpdate.UTC())
		}
	}
	return nil
}

// ThisUpdate returns the time when the list was made.
func (c *CRL) ThisUpdate() time.Time { return c.thisUpdate }

// NextUpdate returns the time by which the list must have been replaced.
func (c *CRL) NextUpdate() time.Time { return c.nextUpdate }

func issuerOf(list *x509.RevocationList, issuers []*x509.Certificate) (*x509.Certificate, error) {
	err := errors.New("not of a known issuer")
	for _, issuer := range issuers {
		if !bytes.Equal(issuer.RawSubject, list.RawIssuer) {
			continue
		}
		if err = list.CheckSignatureFrom(issuer); err == nil {
			return issuer, nil
		}
	}
	return nil, err
}

// checkComplete refuses lists that cannot be understood on their own: those with a
// critical extension (RFC 5280 sections 5.2 and 5.3), which says that the list is a
// delta, covers a part, or speaks for other issuers.
func checkComplete(list *x509.RevocationList) error {
	if list.NextUpdate.IsZero() {
		return errors.New("it does not say when it expires")
	}
	if err := noneCritical(list.Extensions); err != nil {
		return err
	}
	for _, entry := range list.RevokedCertificateEntries {
		if err := noneCritical(entry.Extensions); err != nil {
			return err
		}
	}
	return nil
}

func noneCritical(extensions []pkix.Extension) error {
	for _, e := range extensions {
		if e.Critical {
			return fmt.Errorf("critical extension %v is not supported", e.Id)
		}
	}
	return nil
}

// serialKey includes the sign: broken issuers have used negative numbers.
func serialKey(n *big.Int) string { return n.Text(16) }

func (c *CRL) lists(certificate *x509.Certificate) bool {
	_, ok := c.revoked[serialKey(certificate.SerialNumber)]
	return ok
}

// Current returns an error if the list is out of date or not yet valid at that time.
func (c *CRL) Current(now time.Time) error {
	switch {
	case now.After(c.nextUpdate):
		return fmt.Errorf("revocation list of %q has been out of date since %v", c.issuer.Subject, c.nextUpdate.UTC())
	case now.Before(c.thisUpdate):
		return fmt.Errorf("revocation list of %q starts at %v", c.issuer.Subject, c.thisUpdate.UTC())
	}
	return nil
}

// SpeaksFor reports whether the list was issued by that certificate's name and key.
func (c *CRL) SpeaksFor(issuer *x509.Certificate) bool {
	return bytes.Equal(c.issuer.RawSubject, issuer.RawSubject) &&
		bytes.Equal(c.issuer.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo)
}

// revokedBy reports whether a list revokes a certificate that its issuer did sign, before
// anything else about the certificate is judged. An out-of-date list still revokes.
func revokedBy(crls []*CRL, certificate *x509.Certificate) bool {
	for _, c := range crls {
		if c.lists(certificate) && bytes.Equal(c.issuer.RawSubject, certificate.RawIssuer) &&
			certificate.CheckSignatureFrom(c.issuer) == nil {
			return true
		}
	}
	return false
}

// ErrRevoked says that a certificate is on a revocation list of its issuer.
var ErrRevoked = errors.New("revoked")

// CheckChain looks up every certificate of a verified chain in revocation lists,
// except the root, which is trusted by configuration. It returns [ErrRevoked] for
// a revoked certificate, and another error if an issuer's lists are all out of
// date. An issuer without any list is skipped, unless require is set.
func CheckChain(chain []*x509.Certificate, crls []*CRL, require bool, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("no chain of certificates")
	}
	return checkChain(chain, crls, require, now)
}

// checkChain checks every certificate of a chain against the lists, except the root,
// which is trusted by configuration.
func checkChain(chain []*x509.Certificate, crls []*CRL, require bool, now time.Time) error {
	for i, certificate := range chain[:len(chain)-1] {
		if err := checkRevocation(certificate, chain[i+1], crls, require, now); err != nil {
			return err
		}
	}
	return nil
}

// checkRevocation checks every list of the issuer; one of them must be current.
func checkRevocation(certificate, issuer *x509.Certificate, crls []*CRL, require bool, now time.Time) error {
	var known, current bool
	var stale error
	for _, c := range crls {
		if !c.SpeaksFor(issuer) {
			continue
		}
		known = true
		if c.lists(certificate) {
			return fmt.Errorf("%q is %w", certificate.Subject, ErrRevoked)
		}
		if err := c.Current(now); err != nil {
			stale = err
		} else {
			current = true
		}
	}
	switch {
	case known && !current:
		return stale
	case !known && require:
		return fmt.Errorf("no revocation list of %q", issuer.Subject)
	}
	return nil
}
