package enroll

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSaltedPaths finds the ways from certificates that OpenSSL signed with PSS and salts of all
// lengths. testdata/pss/make made them.
func TestSaltedPaths(t *testing.T) {
	read := func(name string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("testdata", "pss", name+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	known, err := ParseBundle(slices.Concat(read("root"), read("authority"), read("authority0"), read("below0"), read("limited"), read("noca"), read("restricted")))
	if err != nil {
		t.Fatal(err)
	}
	root, err := ParseBundle(read("root"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		length int // of the chain
		want   string
	}{
		"ek-0": {2, ""}, "ek-20": {2, ""}, "ek-31": {2, ""}, "ek-32": {2, ""}, "ek-33": {2, ""}, "ek-max": {2, ""},
		"ek-below": {3, ""}, "ek-plain-below": {3, ""}, "ek-below0": {3, ""}, "ek-restricted": {3, ""},
		"ek-too-deep": {0, "too many intermediates"}, "ek-noca": {0, "not authorized to sign"}, "ek-limited": {0, "not authorized to sign for this name"},
		"ek-sha1": {0, "algorithm"}, "ek-two-hashes": {0, "algorithm"},
	} {
		e, err := ParseEKCertificate(read(name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		at := e.NotBefore.Add(time.Hour)
		way, err := known.verify(e, nil, at)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %s", name, err, tt.want)
			}
			continue
		}
		if err != nil || len(way.chain) != tt.length || !way.certified() {
			t.Errorf("%s: %d certificates, %v", name, len(way.chain), err)
			continue
		}
		if again, err := root.verify(e, way.chain[1:], at); err != nil || !sameLists(again.chain, way.chain) {
			t.Errorf("%s: brought by the device, %d certificates, %v", name, len(again.chain), err)
		}
		if err := verifyPath(e, way.chain, known.Roots, at); err != nil {
			t.Errorf("%s: verified again: %v", name, err)
		}
		if late, err := known.verify(e, nil, e.NotAfter.Add(time.Hour)); err != nil || !late.expired() {
			t.Errorf("%s: late: %v", name, err)
		}
		if tt.length > 2 {
			if _, err := root.verify(e, nil, at); err == nil || !strings.Contains(err.Error(), "unknown authority: issuer CN=") {
				t.Errorf("%s: without its issuer: %v", name, err)
			}
		}
		e.RawTBSCertificate = append([]byte{0}, e.RawTBSCertificate...)
		if _, err := known.verify(e, nil, at); err == nil {
			t.Errorf("%s: another content verifies", name)
		}
	}
}

// TestSaltedPolicies refuses a path on which policies are required, since they are not compared.
func TestSaltedPolicies(t *testing.T) {
	now := time.Now()
	ca := func(required bool) *x509.Certificate {
		return &x509.Certificate{Version: 3, IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1,
			NotBefore: now, NotAfter: now, RequireExplicitPolicyZero: required}
	}
	for _, required := range []bool{false, true} {
		for at := range 2 {
			chain := []*x509.Certificate{ca(required && at == 0), ca(required && at == 1), ca(false)}
			_, err := checkClimbed(chain[:1], chain[1:], x509.VerifyOptions{CurrentTime: now})
			if (err != nil) != required {
				t.Errorf("required: %t, %v", required, err)
			}
		}
	}
}
