package serverside

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
)

// TestStapleHealth tells which OCSP responses clients do not get, and who needs them.
func TestStapleHealth(t *testing.T) {
	mustStaple := &x509.Certificate{Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}}}}
	without := &x509.Certificate{Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{0x30, 3, 2, 1, 5}}}}
	expired := errors.New("OCSP response expired on 2030-01-01 00:00:00: put a current response in its place")
	for _, c := range []struct {
		leaf *x509.Certificate
		ocsp string
		err  error
		want Check
	}{
		{without, "a.ocsp", nil, Check{"server.tls.certificates", OK, "a.ocsp is sent to clients"}},
		{mustStaple, "a.ocsp", nil, Check{"server.tls.certificates", OK, "a.ocsp is sent to clients"}},
		{without, "a.ocsp", expired, Check{"server.tls.certificates", Warning, "a.ocsp is not sent: OCSP response expired on 2030-01-01 00:00:00: put a current response in its place"}},
		{mustStaple, "a.ocsp", expired, Check{"server.tls.certificates", Warning, "a.ocsp is not sent, and clients may refuse a.crt, which requires it: OCSP response expired on 2030-01-01 00:00:00: put a current response in its place"}},
		{mustStaple, "", nil, Check{"server.tls.certificates", Warning, "a.crt requires an OCSP response, and clients may refuse it without one: name a file of it with ocsp"}},
		{without, "", nil, Check{}},
	} {
		f := stapledFile{config.Certificate{Certificate: "a.crt", OCSP: c.ocsp}, requiresStaple(c.leaf), func() error { return c.err }}
		got := append(checkStaples([]stapledFile{f}), Check{})[0]
		if got != c.want {
			t.Errorf("%+v, want %+v", got, c.want)
		}
	}
}
