package proof

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	stdasn1 "encoding/asn1"
	"errors"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// ecKey reads an EC key with a named or explicit curve (RFC 3279 section 2.3.5). All
// parameters of an explicit curve must be those of a NIST curve: with another generator,
// anyone could make a private key for a public one.
func ecKey(info keyInfo) (*ecdsa.PublicKey, error) {
	named, written := info.parameters, info.parameters
	var oid stdasn1.ObjectIdentifier
	var parameters cryptobyte.String
	if !named.ReadASN1ObjectIdentifier(&oid) && !written.ReadASN1(&parameters, asn1.SEQUENCE) {
		return nil, errors.New("malformed EC parameters")
	}
	for name, curve := range map[string]elliptic.Curve{
		"1.2.840.10045.3.1.7": elliptic.P256(), "1.3.132.0.34": elliptic.P384(), "1.3.132.0.35": elliptic.P521(),
	} {
		if oid.String() == name || oid == nil && isCurve(parameters, curve.Params()) {
			return point(curve, info.key)
		}
	}
	return nil, errors.New("public key of unknown algorithm " + info.algorithm + ", with the curve " + cmp.Or(oid.String(), "that is written out"))
}

// point reads an ECPoint that is uncompressed, compressed, or both (SEC 1 section 2.3.3,
// X9.62 section 4.3.6).
func point(curve elliptic.Curve, p []byte) (*ecdsa.PublicKey, error) {
	if len(p) == 0 {
		return nil, errors.New("malformed EC point")
	}
	switch p[0] {
	case 2, 3:
		x, y := elliptic.UnmarshalCompressed(curve, p)
		if x == nil {
			return nil, errors.New("malformed EC point")
		}
		size := len(p) - 1
		p = slices.Concat([]byte{4}, x.FillBytes(make([]byte, size)), y.FillBytes(make([]byte, size)))
	case 6 | p[len(p)-1]&1: // the last bit of y must agree
		p = append([]byte{4}, p[1:]...)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, p)
}

// isCurve reports whether ECParameters over a prime field are those of a given curve.
func isCurve(in cryptobyte.String, want *elliptic.CurveParams) bool {
	var field, curve, a, b, generator cryptobyte.String
	var oid stdasn1.ObjectIdentifier
	var version int
	p, n := new(big.Int), new(big.Int)
	ok := in.ReadASN1Integer(&version) &&
		in.ReadASN1(&field, asn1.SEQUENCE) && field.ReadASN1ObjectIdentifier(&oid) && field.ReadASN1Integer(p) &&
		in.ReadASN1(&curve, asn1.SEQUENCE) && curve.ReadASN1(&a, asn1.OCTET_STRING) && curve.ReadASN1(&b, asn1.OCTET_STRING) &&
		in.ReadASN1(&generator, asn1.OCTET_STRING) && in.ReadASN1Integer(n)
	if !ok || !oid.Equal(stdasn1.ObjectIdentifier{1, 2, 840, 10045, 1, 1}) || p.Cmp(want.P) != 0 || n.Cmp(want.N) != 0 {
		return false
	}
	size := (want.BitSize + 7) / 8
	x, y := want.Gx.FillBytes(make([]byte, size)), want.Gy.FillBytes(make([]byte, size))
	whole := bytes.Join([][]byte{{4}, x, y}, nil)
	short := append([]byte{2 + y[size-1]&1}, x...)
	return new(big.Int).SetBytes(a).Cmp(new(big.Int).Sub(want.P, big.NewInt(3))) == 0 && new(big.Int).SetBytes(b).Cmp(want.B) == 0 &&
		(bytes.Equal(generator, whole) || bytes.Equal(generator, short))
}
