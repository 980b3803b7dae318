package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
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
