package entityauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// X509 is the scheme of certificates (MSL wiki, "X.509 Certificates"; RFC 5280).
// The identity is the subject's distinguished name as RFC 2253 writes it.
type X509 struct {
	// Certificate and Key are our own.
	Certificate *x509.Certificate
	Key         crypto.Signer

	// Roots are whom we trust to name peers.
	Roots *x509.CertPool
	// Directory may revoke peers, or say that they must use another scheme.
	// They need no entry.
	Directory msl.Directory
	Time      func() time.Time // nil means time.Now
}

// Scheme returns X509.
func (*X509) Scheme() string { return "X509" }

// Encrypts reports false.
func (*X509) Encrypts() bool { return false }

// Authenticates reports true.
func (*X509) Authenticates() bool { return true }

// Local signs with our own key.
func (x *X509) Local(context.Context) (msl.Local, error) {
	if x.Certificate == nil || x.Key == nil {
		return msl.Local{}, msl.Failure(msl.ErrUnsupportedEntityAuthData, "own certificate", nil)
	}
	identity, err := DistinguishedName(x.Certificate.RawSubject)
	if err != nil {
		return msl.Local{}, msl.Failure(msl.ErrX509CertParseError, "own certificate", err)
	}
	text := base64.StdEncoding.EncodeToString(x.Certificate.Raw)
	e := wire.NewEncoder(64 + len(text))
	e.Begin()
	e.String("x509certificate", text)
	e.End()
	return msl.Local{Identity: identity, AuthData: e.Encoded(), Protector: msl.SigningKey{Key: x.Key}}, nil
}

// Open judges a peer's certificate, in the protocol's order: text that is not
// Base64 4030, not a certificate 4002, revoked 4025, of another scheme 4006,
// expired 4028, not yet valid 4029, not under a trusted root 4004.
func (x *X509) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	certificate, err := parseCertificate(authdata)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	identity, err := DistinguishedName(certificate.RawSubject)
	if err != nil {
		return msl.Sender{}, nil, msl.Failure(msl.ErrX509CertParseError, "subject", err)
	}
	if _, err := lookUp(ctx, x.Directory, identity, x.Scheme()); err != nil {
		return msl.Sender{}, nil, err
	}
	if err := x.verify(certificate); err != nil {
		return msl.Sender{}, nil, err
	}
	return msl.Sender{Identity: identity, Opener: msl.VerifyKey{Key: certificate.PublicKey}, Authenticated: true}, func() {}, nil
}

func parseCertificate(authdata []byte) (*x509.Certificate, error) {
	text, err := member(authdata, "x509certificate")
	if err != nil {
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

func (x *X509) verify(certificate *x509.Certificate) error {
	now := time.Now()
	if x.Time != nil {
		now = x.Time()
	}
	switch {
	case now.After(certificate.NotAfter):
		return msl.Failure(msl.ErrX509CertExpired, "certificate", nil)
	case now.Before(certificate.NotBefore):
		return msl.Failure(msl.ErrX509CertNotYetValid, "certificate", nil)
	case x.Roots == nil:
		return msl.Failure(msl.ErrX509CertVerificationFailed, "certificate", errors.New("no trusted roots configured"))
	}
	_, err := certificate.Verify(x509.VerifyOptions{
		Roots: x.Roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return msl.Failure(msl.ErrX509CertVerificationFailed, "certificate", err)
	}
	return nil
}
