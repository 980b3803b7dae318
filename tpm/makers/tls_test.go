package makers

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAskTLS asks a service whose certificate the roots of the machine vouch for, and no other:
// who answers decides about nothing, but sees which chip asks. The system's roots are read
// once, so that no other test of this package may use TLS.
func TestAskTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("answer of " + strings.TrimPrefix(r.URL.EscapedPath(), "/a/")[:4]))
	}))
	defer server.Close()
	roots, none := filepath.Join(t.TempDir(), "roots.pem"), t.TempDir()
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", roots)
	t.Setenv("SSL_CERT_DIR", none)
	s, err := ParseService("intel:" + server.URL + "/a")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Ask(t.Context(), rsaEK(t)); string(got) != "answer of WVEG" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	stranger := strings.Replace(server.URL, "127.0.0.1", "localhost", 1) // of which its certificate says nothing
	if s, err = ParseService("intel:" + stranger); err != nil {
		t.Fatal(err)
	}
	var hostname x509.HostnameError
	if got, err := s.Ask(context.Background(), rsaEK(t)); got != nil || !errors.As(err, &hostname) {
		t.Errorf("%q, %v", got, err)
	}
}
