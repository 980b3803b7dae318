package proof

import (
	"crypto"
	"crypto/x509"
	stdasn1 "encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// ParseCertificate reads a manufacturer's certificate in DER. It also reads certificates
// issued by TPM manufacturers that the standard library refuses or reads incompletely:
// with BER lengths, a serial number that is negative or not in its shortest form, times
// in another form, text in another character set than declared, damaged extensions that
// do not matter here, no version, an explicit curve, a compressed point, or a key
// restricted to OAEP. In such a certificate, only the fields that a verification needs
// are set, and the location of the issuer's certificate.
func ParseCertificate(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err == nil && c.PublicKey != nil && c.Version == 3 {
		c.Signature = strictSignature(c)
		c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, func(id stdasn1.ObjectIdentifier) bool {
			return slices.Contains(harmless(), id.String())
		})
		limitNames(c)
		return c, nil
	}
	odd, own := parseOdd(der)
	switch {
	case own == nil && (err != nil || c.PublicKey == nil || len(odd.Extensions) > 0):
		return odd, nil
	case err == nil && c.PublicKey != nil:
		return c, nil // of version 1, which has no extensions
	case err != nil:
		return nil, fmt.Errorf("%w (%w)", own, err) // which may be about what was let pass
	}
	return nil, own
}

// limitNames makes name constraints that the standard library does not compare unhandled ones,
// even if they are not critical: it would skip those.
func limitNames(c *x509.Certificate) {
	for _, x := range c.Extensions {
		if x.Id.Equal(nameConstraints()) && !x.Critical && limitsOtherNames(x.Value) {
			c.UnhandledCriticalExtensions = append(c.UnhandledCriticalExtensions, x.Id)
		}
	}
}

// parseOdd reads a Certificate (RFC 5280 section 4.1). The signature covers its original
// bytes; what is read is the same in DER.
func parseOdd(der []byte) (*x509.Certificate, error) {
	parts := certificateParts(der)
	if _, size := extent(der, 0); parts == nil || size != len(der) {
		return nil, errors.New("malformed certificate")
	}
	body, algorithm, value := cryptobyte.String(toDER(parts[0])), cryptobyte.String(toDER(parts[1])), cryptobyte.String(toDER(parts[2]))
	var signature []byte
	if !body.ReadASN1(&body, asn1.SEQUENCE) || !algorithm.ReadASN1(&algorithm, asn1.SEQUENCE) || !value.ReadASN1BitStringAsBytes(&signature) {
		return nil, errors.New("malformed certificate")
	}
	c := &x509.Certificate{
		Raw: der, RawTBSCertificate: parts[0], Signature: signature, SignatureAlgorithm: signatureAlgorithm(algorithm),
		Version: 3, BasicConstraintsValid: true, MaxPathLen: -1,
	}
	c.Signature = strictSignature(c)
	return c, readBody(c, body)
}

// readBody reads the content of a TBSCertificate.
func readBody(c *x509.Certificate, in cryptobyte.String) error {
	var serial, algorithm, issuer, validity, subject, key, extensions cryptobyte.String
	context := func(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific() }
	var has bool
	if !in.SkipOptionalASN1(context(0).Constructed()) || !in.ReadASN1(&serial, asn1.INTEGER) ||
		!in.ReadASN1(&algorithm, asn1.SEQUENCE) || !in.ReadASN1Element(&issuer, asn1.SEQUENCE) ||
		!in.ReadASN1(&validity, asn1.SEQUENCE) || !in.ReadASN1Element(&subject, asn1.SEQUENCE) ||
		!in.ReadASN1Element(&key, asn1.SEQUENCE) || !in.SkipOptionalASN1(context(1)) || !in.SkipOptionalASN1(context(2)) ||
		!in.ReadOptionalASN1(&extensions, &has, context(3).Constructed()) || !in.Empty() {
		return errors.New("malformed certificate")
	}
	if signatureAlgorithm(algorithm) != c.SignatureAlgorithm {
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
	if len(b) > 0 && b[0] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return n
}

// certifiedKey reads a SubjectPublicKeyInfo.
func certifiedKey(der []byte) (crypto.PublicKey, x509.PublicKeyAlgorithm, error) {
	if key, err := x509.ParsePKIXPublicKey(der); err == nil {
		return key, algorithmOf(key), nil
	}
	info, err := readKeyInfo(der)
	if err != nil {
		return nil, 0, err
	}
	var key crypto.PublicKey
	switch info.algorithm {
	case ecPublicKey, ecDH:
		key, err = ecKey(info)
	case rsaEncryption, rsaOAEP, rsaPSS:
		key, err = rsaKey(info.key)
	default:
		err = errors.New("public key of unknown algorithm " + info.algorithm)
	}
	return key, algorithmOf(key), err
}
