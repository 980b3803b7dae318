package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/url"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// answersOf are the forms in which makers answer with a certificate.
func answersOf(t *testing.T, der, above []byte) map[string][]byte {
	t.Helper()
	inJSON := func(certificate string) []byte {
		text, err := json.Marshal(map[string]any{"pubhash": "WVEG", "certificate": certificate, "version": 1})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	size := []byte{0x59, byte(len(der) >> 8), byte(len(der))} // a byte string of CBOR
	coded := base64.StdEncoding.EncodeToString(der)
	return map[string][]byte{
		"JSON, a string":               []byte(`"` + coded + `"`),
		"JSON, a list":                 []byte(`["", 7, "` + coded + `"]`),
		"JSON, deep":                   []byte(`{"error":null,"data":{"certificates":[{"der":"` + coded + `"}]}}`),
		"JSON, after a mark":           append([]byte("\ufeff"), inJSON(coded)...),
		"base64 in lines":              []byte(" " + coded[:64] + " \r\n\t" + coded[64:] + "\r\n"),
		"base64 of PEM":                []byte(base64.StdEncoding.EncodeToString(text)),
		"PEM, after a mark":            append([]byte("\ufeff"), text...),
		"PEM, in lines of DOS":         append([]byte("Subject: none\r\n\r\n"), bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))...),
		"PEM of PKCS #7":               pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: bundled(der, above)}),
		"PKCS #7":                      bundled(der, above),
		"DER":                          der,
		"PEM":                          text,
		"the one above it first":       append(bytes.Clone(above), der...),
		"JSON, base64url":              inJSON(base64.URLEncoding.EncodeToString(der)),
		"JSON, escaped":                inJSON(url.QueryEscape(base64.URLEncoding.EncodeToString(der))),
		"JSON, base64 without padding": inJSON(base64.RawStdEncoding.EncodeToString(der)),
		"JSON, PEM":                    inJSON(string(text)),
		"CBOR":                         append(append([]byte("\xa2\x67pubhash\x44WVEG\x6bcertificate"), size...), der...),
	}
}

// bundled is a SignedData of certificates alone (RFC 5652 section 5).
func bundled(certificates ...[]byte) []byte {
	within := func(tag asn1.Tag, parts ...[]byte) []byte {
		var b cryptobyte.Builder
		b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(parts, nil)) })
		return b.BytesOrPanic()
	}
	list := within(asn1.Tag(0).ContextSpecific().Constructed(), certificates...)
	data := within(asn1.SEQUENCE, []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1})
	signed := within(asn1.SEQUENCE, []byte{2, 1, 1, 0x31, 0}, data, list, []byte{0x31, 0})
	return within(asn1.SEQUENCE, []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2}, within(asn1.Tag(0).ContextSpecific().Constructed(), signed))
}

// TestService enrolls with a certificate that the TPM does not have, and asks for it once.
func TestService(t *testing.T) {
	m, p := newMaker(t), tpmtest.Start(t)
	chip := connect(t, p)
	der := m.certify(t, primary(t, chip, tpm2.ECCEKTemplate))
	for form, answer := range answersOf(t, der, m.between.Raw) {
		t.Run(form, func(t *testing.T) {
			asked := 0
			o := InitOptions{EK: EKP256, Service: func(context.Context, crypto.PublicKey) ([]byte, error) { asked++; return answer, nil }}
			path := newPath(t)
			for range 2 {
				if err := openDevice(t, chip, path).Init(t.Context(), o, nil); err != nil {
					t.Fatal(err)
				}
			}
			d := openDevice(t, chip, path)
			if list := saved(t, d).file.state.EK.Certificates; asked != 1 || len(list) == 0 || !bytes.Equal(list[0], der) {
				t.Fatalf("asked %d times, %d certificates", asked, len(list))
			}
			if form != "the one above it first" {
				return
			}
			policy := enroll.Policy{Bundle: bundleOf(t, []*x509.Certificate{m.root, m.between}), RefuseUnknown: true}
			if err := d.Enroll(t.Context(), newOffice(t, policy).exchange, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTexts decodes base64, but no PEM, of any length.
func TestTexts(t *testing.T) {
	for n := range 9 {
		der := bytes.Repeat([]byte{0x30}, 100+n)
		text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		for _, given := range []string{text, url.PathEscape(text)} {
			if got := fromText(given); string(got) != text {
				t.Errorf("%d bytes, %q", n, got)
			}
		}
		if got := fromText(" " + base64.StdEncoding.EncodeToString(der) + "\r\n"); !bytes.Equal(got, der) {
			t.Errorf("%d bytes, %x", n, got)
		}
	}
}

// TestServiceWithout makes the keys although there is no certificate, and asks again later.
func TestServiceWithout(t *testing.T) {
	m, chip := newMaker(t), connect(t, tpmtest.Start(t))
	rsa, ecc := primary(t, chip, tpm2.RSAEKTemplate), primary(t, chip, tpm2.ECCEKTemplate)
	good := m.certify(t, rsa)
	path := newPath(t)
	initialize := func(answer []byte, fault error) (why error) {
		o := InitOptions{
			Service:     func(context.Context, crypto.PublicKey) ([]byte, error) { return answer, fault },
			Uncertified: func(err error) { why = err },
		}
		if err := openDevice(t, chip, path).Init(t.Context(), o, nil); err != nil {
			t.Fatal(err)
		}
		return why
	}
	down := errors.New("down")
	checkError(t, initialize(nil, down), down)
	checkError(t, initialize(nil, nil), ErrEKCertificate)
	checkError(t, initialize(m.certify(t, ecc), nil), ErrEKCertificate)
	checkError(t, initialize([]byte(`{"certificate":7,"x":"%zz"}`), nil), ErrEKCertificate)
	checkError(t, initialize(good[:len(good)-1], nil), ErrEKCertificate)
	if list := saved(t, openDevice(t, chip, path)).file.state.EK.Certificates; len(list) != 0 {
		t.Errorf("%d certificates", len(list))
	}
	checkError(t, initialize(good, nil), nil)
	checkError(t, initialize(nil, down), nil) // nobody is asked
}

// TestServiceNotNeeded asks nobody for a certificate that the TPM has.
func TestServiceNotNeeded(t *testing.T) {
	m, chip := newMaker(t), connect(t, tpmtest.Start(t))
	define(t, chip, 0x01c00002, m.certify(t, primary(t, chip, tpm2.RSAEKTemplate)))
	o := InitOptions{Service: func(context.Context, crypto.PublicKey) ([]byte, error) {
		t.Error("asked")
		return nil, nil
	}}
	checkError(t, openDevice(t, chip, newPath(t)).Init(t.Context(), o, nil), nil)
}

// FuzzServiceAnswers finds certificates, and only what is no longer than one may be.
func FuzzServiceAnswers(f *testing.F) {
	f.Add([]byte(`{"pubhash":"WVEG","certificate":"MIIE%3D"}`))
	f.Add([]byte("\xa1\x6bcertificate\x59\x01\x00\x30\x82"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		for _, der := range answered(answer) {
			if len(der) > proof.MaxPart {
				t.Errorf("%d bytes", len(der))
			}
		}
	})
}
