package cli

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// secureupstream VAR CLIENT starts an HTTPS service for the client whose certificate is
// in the file CLIENT. Its own certificate, for example.com, is in VAR.pem.
func secureUpstream(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s for %s\n", r.TLS.PeerCertificates[0].Subject.CommonName, r.TLS.ServerName)
	}))
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM([]byte(ts.ReadFile(args[1]))) {
		ts.Fatalf("no certificate in %s", args[1])
	}
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	s.StartTLS()
	ts.Defer(s.Close)
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pem"), own, 0o600))
	ts.Setenv(args[0], s.URL)
}
