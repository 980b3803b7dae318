package mslhttp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A TLSCertificate is a certificate with its private key, which may be in a token.
//
// An RSA key of package keystore makes only one kind of signature. A key for PKCS #1
// v1.5, which TLS 1.3 does not have (RFC 8446 section 4.2.3), serves TLS 1.2 only. A key
// for RSASSA-PSS ([keystore.RSAPSS2048] and longer) serves both, as does an ECDSA key.
type TLSCertificate struct {
	Chain [][]byte      // DER, the certificate of the key first
	Key   crypto.Signer // used once for each handshake that does not resume a session

	// OCSP returns the OCSP response to staple (RFC 6066 section 8), or nil for
	// none. It is called in each handshake. A nil function staples none.
	OCSP func() []byte
}

// CheckOCSP returns why the OCSP response is not stapled now, and what to do.
func (c TLSCertificate) CheckOCSP() error {
	if c.OCSP == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		return fmt.Errorf("mslhttp: TLS certificate: %w", err)
	}
	id := &identity{Certificate: tls.Certificate{Certificate: c.Chain, Leaf: leaf}, ask: c.OCSP}
	response, err := id.staple()
	switch {
	case err == errStale:
		err = fmt.Errorf("%w on %s", err, id.until.UTC().Format(time.DateTime))
	case err == nil && response == nil:
		err = errors.New("mslhttp: the OCSP response cannot be read")
	case errors.Is(err, errOCSPRevoked):
		return fmt.Errorf("%w: replace the certificate", err)
	case err == nil:
		return nil
	}
	return fmt.Errorf("%w: put a current response in its place", err)
}

// An identity is a certificate that passed the checks for its use.
type identity struct {
	tls.Certificate
	newest uint16 // version of TLS that its key supports
	ask    func() []byte

	mu      sync.Mutex
	stapled []byte // the last response that was checked
	until   time.Time
}

// load checks a certificate for a server or a client.
func (c TLSCertificate) load(usage x509.ExtKeyUsage, least uint16) (*identity, error) {
	if len(c.Chain) == 0 || c.Key == nil {
		return nil, errors.New("mslhttp: TLS certificate without a chain or without a key")
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("mslhttp: TLS certificate: %w", err)
	}
	id := &identity{Certificate: tls.Certificate{Certificate: c.Chain, PrivateKey: c.Key, Leaf: leaf}, ask: c.OCSP}
	if err := id.fits(c.Key, usage); err != nil {
		return nil, fmt.Errorf("mslhttp: TLS certificate of %q: %w", leaf.Subject, err)
	}
	id.SupportedSignatureAlgorithms, id.newest = signatures(c.Key)
	if id.newest < least {
		return nil, fmt.Errorf("mslhttp: TLS certificate of %q: its key signs only with RSA PKCS #1 v1.5, and %s has no such signatures: make an ecdsa-p256 or rsa2048-pss key, or let the minimum be TLS 1.2",
			leaf.Subject, tls.VersionName(least))
	}
	if c.OCSP != nil {
		if _, err := id.staple(); err != nil && err != errStale {
			return nil, err
		}
	}
	return id, nil
}

// fits checks early for anything that would make every handshake fail.
func (id *identity) fits(key crypto.Signer, usage x509.ExtKeyUsage) error {
	now := time.Now()
	switch {
	case !keystore.SamePublic(key.Public(), id.Leaf.PublicKey):
		return errors.New("it is not for this key: name the key that it was made for")
	case now.After(id.Leaf.NotAfter):
		return fmt.Errorf("it expired on %s: renew it", id.Leaf.NotAfter.Format(time.DateOnly))
	case now.Before(id.Leaf.NotBefore):
		return fmt.Errorf("it is not valid before %s: check the clock", id.Leaf.NotBefore.Format(time.DateTime))
	case usage == x509.ExtKeyUsageServerAuth && len(id.Leaf.DNSNames)+len(id.Leaf.IPAddresses) == 0:
		return errors.New("it has no subject alternative name, so no client accepts it: make one with DNS names or IP addresses")
	case !allows(id.Leaf, usage):
		return errors.New("its extended key usage does not allow this use of TLS")
	}
	return nil
}

func allows(c *x509.Certificate, usage x509.ExtKeyUsage) bool {
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	for _, u := range c.ExtKeyUsage {
		if u == usage || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

// signatures returns the signatures that a key can make (nil means all of its kind), and
// the highest version of TLS that has them.
func signatures(key crypto.Signer) ([]tls.SignatureScheme, uint16) {
	kept, stored := key.(keystore.Key)
	switch key.Public().(type) {
	case *rsa.PublicKey:
		switch {
		case stored && kept.Algorithm().PSS():
			return []tls.SignatureScheme{tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512}, tls.VersionTLS13
		case stored:
			return []tls.SignatureScheme{tls.PKCS1WithSHA256}, tls.VersionTLS12
		}
	case *ecdsa.PublicKey:
		if stored {
			return []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512}, tls.VersionTLS13
		}
	}
	return nil, tls.VersionTLS13
}

var (
	errStale       = errors.New("mslhttp: OCSP response expired")
	errOCSPRevoked = errors.New("was revoked") // by the authority, says a response
)

// staple returns the OCSP response to send now, or nil. An unusable response is an
// error, and is not sent.
func (id *identity) staple() ([]byte, error) {
	if id.ask == nil {
		return nil, nil
	}
	raw := id.ask()
	if raw == nil {
		return nil, nil
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if !bytes.Equal(raw, id.stapled) {
		until, err := judgeOCSP(raw, id.Leaf, id.issuer())
		if err != nil {
			return nil, err
		}
		id.stapled, id.until = raw, until
	}
	if time.Now().After(id.until) {
		return nil, errStale
	}
	return raw, nil
}

func (id *identity) issuer() *x509.Certificate {
	if len(id.Certificate.Certificate) < 2 {
		return nil
	}
	issuer, err := x509.ParseCertificate(id.Certificate.Certificate[1])
	if err != nil {
		return nil
	}
	return issuer
}

// judgeOCSP checks a response (RFC 6960) about a certificate, and returns the time until
// which it is valid. Without an issuer its signature is not checked.
func judgeOCSP(raw []byte, leaf, issuer *x509.Certificate) (time.Time, error) {
	response, err := ocsp.ParseResponseForCert(raw, leaf, issuer)
	switch {
	case errors.As(err, new(asn1.StructuralError)), errors.As(err, new(asn1.SyntaxError)):
		return time.Time{}, fmt.Errorf("mslhttp: OCSP response for %q: it is not one in DER or PEM", leaf.Subject)
	case err != nil:
		return time.Time{}, fmt.Errorf("mslhttp: OCSP response for %q: %w", leaf.Subject, err)
	case response.Status == ocsp.Revoked:
		return time.Time{}, fmt.Errorf("mslhttp: the certificate of %q %w on %s", leaf.Subject, errOCSPRevoked, response.RevokedAt.Format(time.DateOnly))
	case response.Status != ocsp.Good:
		return time.Time{}, fmt.Errorf("mslhttp: OCSP response: the responder does not know the certificate of %q", leaf.Subject)
	}
	if response.NextUpdate.IsZero() {
		return time.Now().Add(time.Hour), nil // newer information is always available
	}
	return response.NextUpdate, nil
}

// of returns the certificate for one connection, which records why its key failed.
func (id *identity) of(c *TLSConn) tls.Certificate {
	certificate := id.Certificate
	certificate.PrivateKey = &notingKey{id.PrivateKey.(crypto.Signer), c}
	if response, err := id.staple(); err == nil {
		certificate.OCSPStaple = response
	}
	return certificate
}

// A notingKey records a key's errors, since crypto/tls passes on only their text, or
// nothing.
type notingKey struct {
	crypto.Signer
	conn *TLSConn
}

func (k *notingKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := k.Signer.Sign(random, digest, opts)
	if err != nil {
		k.conn.mu.Lock()
		k.conn.keyErr = err
		k.conn.mu.Unlock()
	}
	return signature, err
}
