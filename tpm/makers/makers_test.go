package makers

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
)

// TestMakers checks every certificate that is shipped.
func TestMakers(t *testing.T) {
	all := parse(t)
	seen := map[string]bool{}
	for _, c := range all {
		name := c.Subject.String()
		if seen[string(c.Raw)] {
			t.Errorf("%s: twice", name)
		}
		seen[string(c.Raw)] = true
		if !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			t.Errorf("%s: not of an authority", name)
		}
		if !signed(c, all) {
			t.Errorf("%s: signed by none of them", name)
		}
		weak := c.SignatureAlgorithm == x509.SHA1WithRSA || c.SignatureAlgorithm == x509.ECDSAWithSHA1
		if weak && !bytes.Equal(c.RawIssuer, c.RawSubject) {
			t.Errorf("%s: signed with SHA-1", name)
		}
	}
}

func parse(t *testing.T) (all []*x509.Certificate) {
	t.Helper()
	if blocks := bytes.Count(PEM(), []byte("-----BEGIN")); blocks < 40 {
		t.Errorf("only %d certificates", blocks)
	}
	rest := PEM()
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if len(all) != bytes.Count(PEM(), []byte("-----BEGIN")) || bytes.Contains(rest, []byte("-----")) {
		t.Errorf("%d certificates decode", len(all))
	}
	return all
}

// signed reports whether a certificate is signed by one of all, or by itself.
func signed(c *x509.Certificate, all []*x509.Certificate) bool {
	for _, by := range all {
		if bytes.Equal(by.RawSubject, c.RawIssuer) && by.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			return true
		}
	}
	return false
}

// TestList compares the list with what stands above each certificate in the file.
func TestList(t *testing.T) {
	all, err := List()
	if err != nil || len(all) != len(parse(t)) {
		t.Fatalf("%d, %v", len(all), err)
	}
	for _, c := range all {
		for _, line := range []string{"# " + c.Subject + "\n", "# SHA-256 " + c.SHA256 + "\n", "until " + c.NotAfter.Format("2006-01-02") + "\n"} {
			if !strings.Contains(string(PEM()), line) {
				t.Errorf("no line %q", line)
			}
		}
		if c.Name == "" || c.Root != (c.Subject == c.Issuer) || !c.NotBefore.Before(c.NotAfter) {
			t.Errorf("%+v", c)
		}
	}
}
