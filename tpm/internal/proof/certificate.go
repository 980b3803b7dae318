package proof

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// ParseCertificate reads an EK certificate in DER, or one above it. It also reads those that the standard
// library refuses although makers of TPMs issued them: with a serial number that is
// negative or not in its shortest form, text in another character set than it claims,
// damaged extensions that do not matter here, or a key that is restricted to OAEP. Of such
// a certificate only what a verification needs is set.
func ParseCertificate(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err == nil && c.PublicKey != nil {
		return c, nil
	}
	odd, own := parseOdd(der)
	switch {
	case own == nil:
		return odd, nil
	case err != nil:
		return nil, fmt.Errorf("%w (%w)", own, err) // which may be about what was let pass
	}
	return nil, own
}

// parseOdd reads a Certificate (RFC 5280 section 4.1).
func parseOdd(der []byte) (*x509.Certificate, error) {
	c := &x509.Certificate{Raw: der, Version: 3, BasicConstraintsValid: true, MaxPathLen: -1}
	var outer, body, algorithm cryptobyte.String
	var signature []byte
	in := cryptobyte.String(der)
	if !in.ReadASN1(&outer, asn1.SEQUENCE) || !in.Empty() ||
		!outer.ReadASN1Element(&body, asn1.SEQUENCE) || !outer.ReadASN1(&algorithm, asn1.SEQUENCE) ||
		!outer.ReadASN1BitStringAsBytes(&signature) || !outer.Empty() {
		return nil, errors.New("malformed certificate")
	}
	c.RawTBSCertificate, c.Signature, c.SignatureAlgorithm = body, signature, signatureAlgorithm(algorithm)
	if !body.ReadASN1(&body, asn1.SEQUENCE) {
		return nil, errors.New("malformed certificate")
	}
	return c, readBody(c, body, algorithm)
}

// readBody reads the content of a TBSCertificate.
func readBody(c *x509.Certificate, in, signed cryptobyte.String) error {
	var version, serial, algorithm, issuer, validity, subject, key, extensions cryptobyte.String
	context := func(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific() }
	var has bool
	if !in.ReadASN1(&version, context(0).Constructed()) || !in.ReadASN1(&serial, asn1.INTEGER) ||
		!in.ReadASN1(&algorithm, asn1.SEQUENCE) || !in.ReadASN1Element(&issuer, asn1.SEQUENCE) ||
		!in.ReadASN1(&validity, asn1.SEQUENCE) || !in.ReadASN1Element(&subject, asn1.SEQUENCE) ||
		!in.ReadASN1Element(&key, asn1.SEQUENCE) || !in.SkipOptionalASN1(context(1)) || !in.SkipOptionalASN1(context(2)) ||
		!in.ReadOptionalASN1(&extensions, &has, context(3).Constructed()) || !in.Empty() || len(serial) == 0 {
		return errors.New("malformed certificate")
	}
	if string(algorithm) != string(signed) {
		return errors.New("two signature algorithms")
	}
	c.SerialNumber = signedInteger(serial)
	c.RawIssuer, c.RawSubject, c.RawSubjectPublicKeyInfo = issuer, subject, key
	if !readTime(&validity, &c.NotBefore) || !readTime(&validity, &c.NotAfter) {
		return errors.New("malformed validity")
	}
	var err error
	if c.PublicKey, c.PublicKeyAlgorithm, err = certifiedKey(key); err != nil || !has {
		return err
	}
	return readExtensions(c, extensions)
}

// signedInteger reads an INTEGER of any length, in two's complement.
func signedInteger(b []byte) *big.Int {
	n := new(big.Int).SetBytes(b)
	if b[0] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return n
}

// certifiedKey reads a SubjectPublicKeyInfo.
func certifiedKey(der []byte) (crypto.PublicKey, x509.PublicKeyAlgorithm, error) {
	if key, err := x509.ParsePKIXPublicKey(der); err == nil {
		return key, algorithmOf(key), nil
	}
	key, err := rsaKey(der)
	return key, x509.RSA, err
}
