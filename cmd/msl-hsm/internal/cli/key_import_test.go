package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// TestParsePrivate reads keys as other programs write them, with what goes before.
func TestParsePrivate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	own, other := block("EC PRIVATE KEY", der), block("EC PARAMETERS", []byte{6, 1, 1})
	for name, tt := range map[string]struct{ text, want string }{
		"alone":               {own, ""},
		"as openssl ecparam":  {other + own, ""},
		"after a certificate": {block("CERTIFICATE", der) + own + other, ""},
		"with a passphrase":   {block("ENCRYPTED PRIVATE KEY", der), `"ENCRYPTED PRIVATE KEY": want PRIVATE KEY, without a passphrase`},
		"no key":              {other, `"EC PARAMETERS": want PRIVATE KEY`},
		"damaged":             {other + own[:60], "no complete PEM block"},
		"cut off":             {own[:60], "no complete PEM block"},
	} {
		got, err := parsePrivate([]byte(tt.text))
		if tt.want == "" && (err != nil || !key.Equal(got)) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestHalfOfTPM tells the halves of a key in a TPM, as other programs write them, from secret keys.
func TestHalfOfTPM(t *testing.T) {
	private := func(digest int) string {
		return string(tpm2.Marshal(tpm2.TPM2BPrivate{Buffer: append([]byte{0, byte(digest)}, make([]byte, digest+9)...)}))
	}
	for text, want := range map[string]string{
		string(tpm2.Marshal(tpm2.New2B(tpm2.ECCSRKTemplate))): "the public half",
		private(32): "the private half", private(48): "the private half",
		private(32) + "x": "", private(31): "", "\x00\x02\x00\x20": "", "\x00\x00": "", "": "", strings.Repeat("\x00", 32): "", strings.Repeat("k", 64): "",
	} {
		err := halfOfTPM([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), "only "+want+" of")) {
			t.Errorf("%x: %v, want %q", text, err, want)
		}
	}
}
