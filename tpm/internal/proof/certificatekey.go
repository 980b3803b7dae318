package proof

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	stdasn1 "encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// rsaKey reads an RSA key of any algorithm identifier (RFC 4055 section 1.2): rsaEncryption
// with or without parameters, id-RSAES-OAEP, which TPM 1.2 and early TPM 2.0 have, or
// id-RSASSA-PSS. The parameters do not change which key it is.
func rsaKey(der cryptobyte.String) (*rsa.PublicKey, error) {
	var info, algorithm, key, modulus cryptobyte.String
	var oid stdasn1.ObjectIdentifier
	var bits []byte
	if !der.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1(&algorithm, asn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&oid) || !info.ReadASN1BitStringAsBytes(&bits) {
		return nil, errors.New("malformed public key")
	}
	if !slices.ContainsFunc([]int{1, 7, 10}, func(n int) bool {
		return oid.Equal(stdasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, n})
	}) {
		return nil, errors.New("public key of unknown algorithm " + oid.String())
	}
	in := cryptobyte.String(bits)
	var exponent int
	if !in.ReadASN1(&key, asn1.SEQUENCE) || !key.ReadASN1(&modulus, asn1.INTEGER) || !key.ReadASN1Integer(&exponent) ||
		len(modulus) > 1024 || exponent < 3 {
		return nil, errors.New("malformed RSA key")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: exponent}, nil
}

func algorithmOf(key crypto.PublicKey) x509.PublicKeyAlgorithm {
	switch key.(type) {
	case *rsa.PublicKey:
		return x509.RSA
	case *ecdsa.PublicKey:
		return x509.ECDSA
	}
	return x509.UnknownPublicKeyAlgorithm
}

// signatureAlgorithm reads an AlgorithmIdentifier (RFC 3279 section 2.2, RFC 5758 section
// 3.2). Others are unknown, and such a signature does not verify.
func signatureAlgorithm(in cryptobyte.String) x509.SignatureAlgorithm {
	var oid stdasn1.ObjectIdentifier
	if !in.ReadASN1ObjectIdentifier(&oid) {
		return x509.UnknownSignatureAlgorithm
	}
	return map[string]x509.SignatureAlgorithm{
		"1.2.840.113549.1.1.5":  x509.SHA1WithRSA,
		"1.2.840.113549.1.1.11": x509.SHA256WithRSA,
		"1.2.840.113549.1.1.12": x509.SHA384WithRSA,
		"1.2.840.113549.1.1.13": x509.SHA512WithRSA,
		"1.2.840.10045.4.1":     x509.ECDSAWithSHA1,
		"1.2.840.10045.4.3.2":   x509.ECDSAWithSHA256,
		"1.2.840.10045.4.3.3":   x509.ECDSAWithSHA384,
		"1.2.840.10045.4.3.4":   x509.ECDSAWithSHA512,
	}[oid.String()]
}

// readTime reads a Time (RFC 5280 section 4.1.2.5).
func readTime(in *cryptobyte.String, t *time.Time) bool {
	if in.PeekASN1Tag(asn1.UTCTime) {
		return in.ReadASN1UTCTime(t)
	}
	return in.ReadASN1GeneralizedTime(t)
}
