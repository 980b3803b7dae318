package makers

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// intelEK is the endorsement key of a chip of Intel's, whose certificate its service has at
// a place that is known.
const intelEK = `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwyDi8kSoYBqs8+AdJsZl
JJk1Vi3h2hl+nn8HbEaWE8+2U+mOwsOG/B0TPyyMbMM4tzLwsgi9g4qHej5bvD4d
QIToNcfIkGocBbTS0w/b68HbrZUPprFlvUtqhkYDFGFkwMT1nUiQEe8fko3upukA
YfPTdeVkYnMVHvYiJSCYvhpKsB3AoSInxgn9rOsRWvQI1Gk6b0mRl3RpWwwSvBih
/3EgpzN7L7XxlR2Lt/CU1bVUwRyVI7MHKf5keH0KE7nmMEiNq039hmNKUnDscvzF
pE3GeajzKTjdgZfina6Dn1tMoPXeJ8lSLCPFThws5XhZUlEYvURwsYGA7veK5CZ7
zQIDAQAB
-----END PUBLIC KEY-----`

func rsaEK(t *testing.T) crypto.PublicKey {
	t.Helper()
	block, _ := pem.Decode([]byte(intelEK))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// zeroEK is a point on P-256 whose first coordinate begins with a zero byte.
func zeroEK(t *testing.T) (key crypto.PublicKey, coordinates []byte) {
	t.Helper()
	for i := uint16(2); ; i++ {
		private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), binary.BigEndian.AppendUint16(make([]byte, 30), i))
		if err != nil {
			t.Fatal(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if point[1] == 0 {
			return &private.PublicKey, point[1:]
		}
	}
}

func TestServiceURL(t *testing.T) {
	zero, coordinates := zeroEK(t)
	sum := sha256.Sum256(append([]byte{0, 0, 0x44, 0x44}, coordinates...))
	for _, tt := range []struct {
		service string
		key     crypto.PublicKey
		want    string
	}{
		{"intel", rsaEK(t), "https://ekop.intel.com/ekcertservice/WVEG2rRwkQ7m3RpXlUphgo6Y2HLxl18h6ZZkkOAdnBE%3D"},
		{"intel:http://127.0.0.1:9/a", rsaEK(t), "http://127.0.0.1:9/a/WVEG2rRwkQ7m3RpXlUphgo6Y2HLxl18h6ZZkkOAdnBE%3D"},
		{"amd", zero, "https://ftpm.amd.com/pki/aia/" + hex.EncodeToString(sum[:16])},
		{"amd", ed25519.PublicKey(make([]byte, 32)), ""},
	} {
		s, err := ParseService(tt.service)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.URL(tt.key); got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: %s, %v", tt.service, got, err)
		}
	}
}

// TestAMDForm has the exponent of an RSA key before the modulus.
func TestAMDForm(t *testing.T) {
	block, _ := pem.Decode([]byte(intelEK))
	modulus := block.Bytes[len(block.Bytes)-261 : len(block.Bytes)-5]
	sum := sha256.Sum256(append([]byte{0, 0, 0x22, 0x22, 0, 1, 0, 1}, modulus...))
	s, err := ParseService("amd:https://mirror.example/amd/")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.URL(rsaEK(t)); got != "https://mirror.example/amd/"+hex.EncodeToString(sum[:16]) || err != nil {
		t.Error(got, err)
	}
}

func TestParseService(t *testing.T) {
	for text, good := range map[string]bool{
		"intel": true, "amd": true, "amd:https://mirror.example/": true, "intel:http://localhost:1/": true,
		"intel:http://[::1]:1/x": true, "": false, "makers": false, "https://ekop.intel.com/": false, "intel:": false,
		"intel:http://mirror.example/": false, "amd:ftp://mirror.example/": false, "amd:https://u:p@mirror.example/": false,
		"amd:https://mirror.example/?q": false, "intel:https://": false, "intel:http://127.0.0.1.example/": false, "intel:\x7f": false,
	} {
		if s, err := ParseService(text); (err == nil) != good || !good && s != (Service{}) {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
}

// TestAsk reads one answer, follows nothing, and has an end.
func TestAsk(t *testing.T) {
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch strings.Split(r.URL.Path, "/")[1] {
		case "good":
			w.Write([]byte("answer of " + r.URL.EscapedPath()[len("/good/"):][:4]))
		case "elsewhere":
			http.Redirect(w, r, "/good/0000", http.StatusFound)
		case "long":
			w.Write(make([]byte, MaxAnswer+1))
		case "slow":
			close(gone)
			<-r.Context().Done()
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	ask := func(ctx context.Context, path string) (string, error) {
		s, err := ParseService("intel:" + server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := s.Ask(ctx, rsaEK(t))
		return string(answer), err
	}
	if got, err := ask(t.Context(), "/good"); got != "answer of WVEG" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for path, want := range map[string]string{"/elsewhere": "answered HTTP 302", "/long": "too long", "/none": "answered HTTP 404"} {
		if got, err := ask(t.Context(), path); got != "" || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-gone; cancel() }()
	if got, err := ask(ctx, "/slow"); got != "" || err == nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestNoHTTP has a service that does not speak HTTP: an error quotes no more than the beginning
// of what it says, and nothing that steers a terminal.
func TestNoHTTP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write(append([]byte("HTTP/1.1 200 \x1b[2J\r\n\xff\u202e"), append(bytes.Repeat([]byte{'x'}, 100_000), "\r\n\r\n"...)...))
			c.Close()
		}
	}()
	s, err := ParseService("intel:http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Ask(t.Context(), rsaEK(t))
	if err == nil || len(err.Error()) > 2000 || err.Error() != safetext.String(err.Error()) {
		t.Errorf("%.3000q", err)
	}
}
