package entityauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// X509Entity is an entity with a certificate (MSL wiki, "X.509 Certificates"). Its
// identity is the subject's distinguished name in the form of RFC 2253.
type X509Entity struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// Scheme returns X509.
func (*X509Entity) Scheme() string { return "X509" }

// Encrypts reports false.
func (*X509Entity) Encrypts() bool { return false }

// Authenticates reports true.
func (*X509Entity) Authenticates() bool { return true }

// Credentials signs with this side's key.
func (x *X509Entity) Credentials(context.Context) (msl.Credentials, error) {
	if x.Certificate == nil || x.Key == nil {
		return msl.Credentials{}, msl.Failure(msl.ErrUnsupportedEntityAuthData, "own certificate", nil)
	}
	identity, err := DistinguishedName(x.Certificate.RawSubject)
	if err != nil {
		return msl.Credentials{}, msl.Failure(msl.ErrX509CertParseError, "own certificate", err)
	}
	if identity == "" {
		return msl.Credentials{}, msl.Failure(msl.ErrUnsupportedEntityAuthData, "own certificate", errors.New("its subject is empty, and MSL takes the name of an entity from there: have it issued with a subject"))
	}
	text := base64.StdEncoding.EncodeToString(x.Certificate.Raw)
	return msl.Credentials{Identity: identity, AuthData: encodeStrings("x509certificate", text), Protector: msl.SigningKey{Key: x.Key}}, nil
}

// X509 is the scheme of certificates (MSL wiki, "X.509 Certificates"; RFC 5280). The
// identity is the subject's distinguished name in the form of RFC 2253.
type X509 struct {
	// Roots are the authorities that may name peers. A peer sends only its own
	// certificate, so Intermediates must contain those between it and a root.
	Roots         *x509.CertPool
	Intermediates *x509.CertPool
	// CRLs returns the current revocation lists. For issuers without one, revocation is
	// not checked, unless RequireCRL is set. Nil means none.
	CRLs       func() []*CRL
	RequireCRL bool
	// Directory may revoke peers, or restrict them to another scheme. They need no entry.
	Directory msl.Directory
	Time      func() time.Time // nil means time.Now
}

// Scheme returns X509.
func (*X509) Scheme() string { return "X509" }

// Open judges a peer's certificate, in the protocol's order: text that is not Base64 is
// error 4030, not a certificate 4002, revoked by the directory or by a list of its issuer
// 4025, of another scheme 4006, expired 4028, not yet valid 4029, and 4004 everything
// else: no path to a trusted root (RFC 5280 section 6), a key that is not for signatures,
// an issuer that is revoked or whose revocation list is out of date.
func (x *X509) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	certificate, err := parseCertificate(authdata)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	identity, err := DistinguishedName(certificate.RawSubject)
	if err != nil {
		return msl.Sender{}, nil, msl.Failure(msl.ErrX509CertParseError, "subject", err)
	}
	crls := x.crls()
	if revokedBy(crls, certificate) {
		return msl.Sender{}, nil, msl.Failure(msl.ErrEntityRevoked, x.Scheme(), errors.New("the certificate is on a revocation list"))
	}
	if _, err := lookUp(ctx, x.Directory, identity, x.Scheme()); err != nil {
		return msl.Sender{}, nil, err
	}
	if err := x.verify(certificate, crls); err != nil {
		return msl.Sender{}, nil, err
	}
	return msl.Sender{Identity: identity, Opener: msl.VerifyKey{Key: certificate.PublicKey}, Authenticated: true}, func() {}, nil
}

// Check checks the form of authdata: text that is not Base64 is error 4030, and not a
// certificate 4002.
func (*X509) Check(authdata []byte) error {
	_, err := parseCertificate(authdata)
	return err
}

func parseCertificate(authdata []byte) (*x509.Certificate, error) {
	f := wire.ParseFields(authdata)
	text := f.String("x509certificate")
	if err := malformed(f); err != nil {
		return nil, err
	}
	der, err := wire.DecodeBase64(text)
	if err != nil {
		return nil, msl.Failure(msl.ErrX509CertInvalid, "certificate", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, msl.Failure(msl.ErrX509CertParseError, "certificate", err)
	}
	switch certificate.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return certificate, nil
	}
	return nil, msl.Failure(msl.ErrX509CertParseError, "certificate", errors.New("unsupported kind of public key"))
}

func (x *X509) crls() []*CRL {
	if x.CRLs == nil {
		return nil
	}
	return x.CRLs()
}

func (x *X509) verify(certificate *x509.Certificate, crls []*CRL) error {
	const op = "certificate"
	now := time.Now()
	if x.Time != nil {
		now = x.Time()
	}
	switch {
	case now.After(certificate.NotAfter):
		return msl.Failure(msl.ErrX509CertExpired, op, nil)
	case now.Before(certificate.NotBefore):
		return msl.Failure(msl.ErrX509CertNotYetValid, op, nil)
	case x.Roots == nil:
		return msl.Failure(msl.ErrX509CertVerificationFailed, op, errors.New("no trusted roots configured"))
	case !maySign(certificate):
		return msl.Failure(msl.ErrX509CertVerificationFailed, op, errors.New("its key usage does not allow digital signatures"))
	}
	chains, err := certificate.Verify(x509.VerifyOptions{
		Roots: x.Roots, Intermediates: x.Intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return msl.Failure(msl.ErrX509CertVerificationFailed, op, err)
	}
	for _, chain := range chains {
		if err = checkChain(chain, crls, x.RequireCRL, now); err == nil {
			return nil
		}
	}
	return msl.Failure(msl.ErrX509CertVerificationFailed, op, err)
}

// maySign reports whether a certificate's key may sign, which it may if no key usage is
// given (RFC 5280 section 4.2.1.3).
func maySign(certificate *x509.Certificate) bool {
	restricted := slices.ContainsFunc(certificate.Extensions, func(e pkix.Extension) bool {
		return e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 15})
	})
	return !restricted || certificate.KeyUsage&x509.KeyUsageDigitalSignature != 0
}
