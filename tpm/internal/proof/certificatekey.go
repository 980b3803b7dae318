package proof

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	stdasn1 "encoding/asn1"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// The algorithms of a key (RFC 4055 section 1.2, RFC 5480 section 2.1). TPM 1.2 and early
// TPM 2.0 have keys restricted to OAEP.
const (
	rsaEncryption = "1.2.840.113549.1.1.1"
	rsaOAEP       = "1.2.840.113549.1.1.7"
	rsaPSS        = "1.2.840.113549.1.1.10"
	ecPublicKey   = "1.2.840.10045.2.1"
	ecDH          = "1.3.132.1.12"
)

// A keyInfo is the content of a SubjectPublicKeyInfo (RFC 5280 section 4.1).
type keyInfo struct {
	algorithm  string
	parameters cryptobyte.String
	key        []byte
}

func readKeyInfo(der cryptobyte.String) (k keyInfo, err error) {
	var info, algorithm cryptobyte.String
	var oid stdasn1.ObjectIdentifier
	if !der.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1(&algorithm, asn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&oid) || !info.ReadASN1BitStringAsBytes(&k.key) {
		return k, errors.New("malformed public key")
	}
	k.algorithm, k.parameters = oid.String(), algorithm
	return k, nil
}

// rsaKey reads an RSAPublicKey. The parameters of its algorithm do not change which key it is.
func rsaKey(der []byte) (*rsa.PublicKey, error) {
	var key, modulus, exponent cryptobyte.String
	in := cryptobyte.String(toDER(der))
	if !in.ReadASN1(&key, asn1.SEQUENCE) || !key.ReadASN1(&modulus, asn1.INTEGER) || !key.ReadASN1(&exponent, asn1.INTEGER) ||
		len(modulus) > 1024 {
		return nil, errors.New("malformed RSA key")
	}
	e := new(big.Int).SetBytes(exponent)
	if e.BitLen() < 2 || e.BitLen() > 31 || e.Bit(0) == 0 {
		return nil, errors.New("malformed RSA key")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(e.Int64())}, nil
}

func algorithmOf(key crypto.PublicKey) x509.PublicKeyAlgorithm {
	switch key.(type) {
	case *rsa.PublicKey:
		return x509.RSA
	case *ecdsa.PublicKey:
		return x509.ECDSA
	case ed25519.PublicKey:
		return x509.Ed25519
	}
	return x509.UnknownPublicKeyAlgorithm
}
