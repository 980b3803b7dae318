package proof

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// signatureAlgorithm reads an AlgorithmIdentifier (RFC 3279 section 2.2, RFC 5758 section
// 3.2). Other algorithms are unknown, and such signatures do not verify.
func signatureAlgorithm(in cryptobyte.String) x509.SignatureAlgorithm {
	var oid stdasn1.ObjectIdentifier
	if !in.ReadASN1ObjectIdentifier(&oid) {
		return x509.UnknownSignatureAlgorithm
	}
	if oid.String() == rsaPSS {
		return pssAlgorithm(in)
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
		"1.3.101.112":           x509.PureEd25519,
	}[oid.String()]
}

// pssAlgorithm returns the algorithm of RSASSA-PSS with these parameters, unless the
// standard library cannot verify it, for example because the salt is not as long as the hash.
func pssAlgorithm(parameters []byte) x509.SignatureAlgorithm {
	hash, salt := pssParameters(parameters)
	if hash == 0 || hash.Size() != salt {
		return x509.UnknownSignatureAlgorithm
	}
	return map[crypto.Hash]x509.SignatureAlgorithm{
		crypto.SHA256: x509.SHA256WithRSAPSS, crypto.SHA384: x509.SHA384WithRSAPSS, crypto.SHA512: x509.SHA512WithRSAPSS,
	}[hash]
}

// pssParameters reads RSASSA-PSS-params (RFC 4055 section 3.1). There is no hash if it is SHA-1
// or unknown, or another one than that of the mask.
func pssParameters(parameters []byte) (hash crypto.Hash, salt int) {
	var p struct {
		Hash    pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
		Mask    pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
		Salt    int                      `asn1:"optional,explicit,tag:2,default:20"`
		Trailer int                      `asn1:"optional,explicit,tag:3,default:1"`
	}
	if rest, err := stdasn1.Unmarshal(parameters, &p); err != nil || len(rest) > 0 {
		return 0, 0
	}
	var masked pkix.AlgorithmIdentifier
	_, err := stdasn1.Unmarshal(p.Mask.Parameters.FullBytes, &masked)
	if err != nil || p.Mask.Algorithm.String() != "1.2.840.113549.1.1.8" || !masked.Algorithm.Equal(p.Hash.Algorithm) || p.Trailer != 1 {
		return 0, 0
	}
	return map[string]crypto.Hash{
		"2.16.840.1.101.3.4.2.1": crypto.SHA256, "2.16.840.1.101.3.4.2.2": crypto.SHA384, "2.16.840.1.101.3.4.2.3": crypto.SHA512,
	}[p.Hash.Algorithm.String()], p.Salt
}

// SaltedBy reports whether an authority signed a certificate with RSASSA-PSS and a salt of
// another length than the hash, as OpenSSL does unless it is told a length. The standard
// library takes that for an unknown algorithm.
func SaltedBy(c, authority *x509.Certificate) bool {
	key, ok := authority.PublicKey.(*rsa.PublicKey)
	if !ok || c.SignatureAlgorithm != x509.UnknownSignatureAlgorithm {
		return false
	}
	oid, parameters := signedWith(c)
	hash, _ := pssParameters(parameters)
	if oid != rsaPSS || hash == 0 {
		return false
	}
	h := hash.New()
	h.Write(c.RawTBSCertificate)
	return rsa.VerifyPSS(key, hash, h.Sum(nil), c.Signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}) == nil
}

// SignatureProblem says why a signature of an unknown algorithm cannot be verified.
func SignatureProblem(c *x509.Certificate) string {
	oid, _ := signedWith(c)
	if oid == rsaPSS {
		return "RSASSA-PSS is supported only with SHA-256, SHA-384 or SHA-512, and the same hash in the mask generation function"
	}
	return "signatures of algorithm " + oid + " are not supported"
}

// signedWith returns the algorithm of a certificate's signature and its parameters.
func signedWith(c *x509.Certificate) (algorithm string, parameters []byte) {
	parts := certificateParts(c.Raw)
	if parts == nil {
		return "", nil
	}
	var oid stdasn1.ObjectIdentifier
	in := cryptobyte.String(toDER(parts[1]))
	if !in.ReadASN1(&in, asn1.SEQUENCE) || !in.ReadASN1ObjectIdentifier(&oid) {
		return "", nil
	}
	return oid.String(), in
}

// strictSignature returns the signature of a certificate. An ECDSA signature is two
// numbers, which are re-encoded, since the standard library accepts only DER.
func strictSignature(c *x509.Certificate) []byte {
	var pair, r, s cryptobyte.String
	in := cryptobyte.String(toDER(c.Signature))
	switch c.SignatureAlgorithm {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		return c.Signature
	}
	if !in.ReadASN1(&pair, asn1.SEQUENCE) || !in.Empty() || !pair.ReadASN1(&r, asn1.INTEGER) || !pair.ReadASN1(&s, asn1.INTEGER) {
		return c.Signature
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(r)) // neither is negative, even if the first bit is set
		b.AddASN1BigInt(new(big.Int).SetBytes(s))
	})
	return b.BytesOrPanic()
}
