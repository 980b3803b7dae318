package proof

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// TestPoints reads a key whose point is in any form, and refuses what is not a point.
func TestPoints(t *testing.T) {
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		sign := whole[len(whole)-1] & 1
		short := append([]byte{2 | sign}, whole[1:1+len(whole)/2]...)
		for form, tt := range map[string]struct {
			algorithm, curve, point []byte
			want                    string
		}{
			"uncompressed":      {oidEC, oidOf(curve), whole, ""},
			"compressed":        {oidEC, oidOf(curve), short, ""},
			"both":              {oidEC, oidOf(curve), append([]byte{6 | sign}, whole[1:]...), ""},
			"both, of another":  {oidEC, oidOf(curve), append([]byte{7 ^ sign}, whole[1:]...), "public key"},
			"for ECDH":          {[]byte{6, 5, 0x2b, 0x81, 4, 1, 12}, oidOf(curve), whole, ""},
			"no point":          {oidEC, oidOf(curve), nil, "malformed EC point"},
			"infinity":          {oidEC, oidOf(curve), []byte{0}, "public key"},
			"too short":         {oidEC, oidOf(curve), short[:len(short)-1], "malformed EC point"},
			"off the curve":     {oidEC, oidOf(curve), append([]byte{4}, make([]byte, len(whole)-1)...), "point"},
			"no curve":          {oidEC, []byte{5, 0}, whole, "malformed EC parameters"},
			"of SM2":            {oidEC, []byte{6, 8, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 1, 0x82, 0x2d}, whole, "with the curve 1.2.156.10197.1.301"},
			"unknown algorithm": {[]byte{6, 1, 0x2a}, nil, whole, "unknown algorithm 1.2"},
		} {
			got, _, err := certifiedKey(keyInfoOf(tt.algorithm, tt.curve, tt.point))
			if ok := err == nil && key.PublicKey.Equal(got); ok != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s, %s: %v, %v", name, form, got, err)
			}
		}
	}
}

var oidEC = []byte{6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1}

func oidOf(curve elliptic.Curve) []byte {
	switch curve {
	case elliptic.P256():
		return []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}
	case elliptic.P384():
		return []byte{6, 5, 0x2b, 0x81, 4, 0, 34}
	}
	return []byte{6, 5, 0x2b, 0x81, 4, 0, 35}
}

func keyInfoOf(algorithm, parameters, key []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(slices.Concat(algorithm, parameters)) })
		b.AddASN1BitString(key)
	})
	return b.BytesOrPanic()
}

// TestSignatures verifies one of ECDSA whose numbers are not as DER has them.
func TestSignatures(t *testing.T) {
	s := newSigner(t, false)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	for range 20 { // with numbers whose first bit is set, and without
		der, err := x509.CreateCertificate(rand.Reader, template, template, s.Public.Key, s.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		strict, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		c := *strict
		var pair, one, two cryptobyte.String
		in := cryptobyte.String(c.Signature)
		if !in.ReadASN1(&pair, asn1.SEQUENCE) || !pair.ReadASN1(&one, asn1.INTEGER) || !pair.ReadASN1(&two, asn1.INTEGER) {
			t.Fatal("no signature")
		}
		for form, pad := range map[string]func([]byte) []byte{
			"longer":         func(b []byte) []byte { return append(make([]byte, 3), b...) },
			"without a sign": func(b []byte) []byte { return bytes.TrimLeft(b, "\x00") },
		} {
			one, two := pad(one), pad(two)
			c.Signature = slices.Concat([]byte{0x30, 0x81, byte(len(one) + len(two) + 5), 2, 0x81, byte(len(one))}, one, []byte{2, byte(len(two))}, two)
			again := c
			if again.Signature = strictSignature(&c); again.CheckSignatureFrom(strict) != nil {
				t.Errorf("%s: %x", form, c.Signature)
			}
			c.Signature[len(c.Signature)-1] ^= 1
			if again.Signature = strictSignature(&c); again.CheckSignatureFrom(strict) == nil {
				t.Errorf("%s: another signature verifies", form)
			}
		}
	}
}
