package serverside

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// A stapledFile is the OCSP response that the server sends with a certificate.
type stapledFile struct {
	config.Certificate
	required bool         // by the certificate
	check    func() error // why it is not sent now, and what to do
}

// requiresStaple reports whether a certificate has the TLS feature status_request (RFC 7633), known
// as must-staple.
func requiresStaple(c *x509.Certificate) bool {
	feature, statusRequest := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, 5
	return slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool {
		var features []int
		rest, err := asn1.Unmarshal(e.Value, &features)
		return e.Id.Equal(feature) && err == nil && len(rest) == 0 && slices.Contains(features, statusRequest)
	})
}

// checkStaples reports on each OCSP response that is sent, or should be.
func checkStaples(files []stapledFile) (checks []Check) {
	const setting = "server.tls.certificates"
	for _, f := range files {
		refused := ""
		if f.required {
			refused = ", and clients may refuse " + f.Certificate.Certificate + ", which requires it"
		}
		err := f.check()
		switch {
		case err != nil:
			checks = append(checks, Check{setting, Warning, f.OCSP + " is not sent" + refused + ": " + exit.OneLine(err)})
		case f.OCSP != "":
			checks = append(checks, Check{setting, OK, f.OCSP + " is sent to clients"})
		case f.required:
			checks = append(checks, Check{setting, Warning, f.Certificate.Certificate + " requires an OCSP response, and clients may refuse it without one: name a file of it with ocsp"})
		}
	}
	return checks
}
