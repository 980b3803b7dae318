package proof

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	stdasn1 "encoding/asn1"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// explicitKey reads an EC key whose curve is written out (RFC 3279 section 2.3.5), or returns
// nil. All of it must be that of a curve of NIST: with another generator anybody could make a
// private key for a public one.
func explicitKey(der cryptobyte.String) *ecdsa.PublicKey {
	var info, algorithm, parameters cryptobyte.String
	var oid stdasn1.ObjectIdentifier
	var point []byte
	if !der.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1(&algorithm, asn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(stdasn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}) ||
		!algorithm.ReadASN1(&parameters, asn1.SEQUENCE) || !info.ReadASN1BitStringAsBytes(&point) {
		return nil
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if !isCurve(parameters, curve.Params()) {
			continue
		}
		if key, err := ecdsa.ParseUncompressedPublicKey(curve, point); err == nil {
			return key
		}
	}
	return nil
}

// isCurve reports whether the ECParameters of a curve over a prime field are those of a curve.
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
