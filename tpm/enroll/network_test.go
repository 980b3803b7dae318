package enroll

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// pathFile reads a certificate that testdata/paths/make made, in PEM.
func pathFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "paths", name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestPaths looks for the paths of certificates that OpenSSL made, with the authorities in the
// bundle, and then with those that are not roots brought by the device.
func TestPaths(t *testing.T) {
	const noPath = "unknown authority"
	for name, tt := range map[string]struct {
		known  string // certificates of authorities
		length int    // of the chain, if there is one
		want   string // why there is none
	}{
		"cross":             {"root cross", 3, ""},
		"cross, expired":    {"cross-expired root cross", 3, ""},
		"cross, two roots":  {"cross-expired cross-root", 2, ""},
		"cross, all":        {"cross-expired cross root cross-root", 2, ""},
		"cross, otherwise":  {"cross-expired second", 0, "expired"},
		"second":            {"first second", 2, ""},
		"second, last":      {"second first", 2, ""},
		"second, otherwise": {"first root", 0, noPath + ` (possibly because of "x509: ECDSA verification failure"`},

		"spelled":             {"spelled-other spelled", 2, ""},
		"spelled, expired":    {"spelled-other spelled-expired spelled", 2, ""},
		"spelled, last":       {"spelled spelled-expired spelled-other", 2, ""},
		"spelled, as it is":   {"spelled-expired spelled-once spelled-other", 2, ""},
		"spelled, too late":   {"spelled-other spelled-expired", 0, "expired"},
		"spelled, otherwise":  {"spelled-other root", 0, noPath},
		"loop":                {"root loop1 loop2", 0, noPath + ": issuer CN=Loop"},
		"loop, with a way":    {"root loop1 loop2 loop2-root", 4, ""},
		"loop, cut":           {"loop1 loop2-self", 3, ""},
		"salted":              {"salted-root salted1 salted2", 0, noPath},
		"salted, with a way":  {"salted-root salted1 salted2 salted2-root", 4, ""},
		"salted, other order": {"salted2-root salted2 salted1 salted-root", 4, ""},
		"two-hashes":          {"salted-root", 0, "issuer CN=Salted Root; RSASSA-PSS is supported only with SHA-256, SHA-384 or SHA-512, and the same hash"},

		"ca0":            {"root ca0", 3, ""},
		"ca0-below":      {"root ca0 ca0-below", 0, "too many intermediates"},
		"names":          {"root names", 0, "; the certificate of CN=Limited names has the extension 2.5.29.30, which is not supported"},
		"names_mildly":   {"root names_mildly", 0, "; the certificate of CN=Limited names_mildly has the extension 2.5.29.30, which is not supported"},
		"names_dns":      {"root names_dns", 3, ""},
		"strange":        {"root strange", 0, "; the certificate of CN=Limited strange has the extension 1.2.3.4, which is not supported"},
		"strange-itself": {"root", 0, "unhandled critical extension; it has the extension 1.2.3.4, which is not supported"},
		"bare":           {"root bare", 3, ""},
		"no-identifiers": {"root bare", 3, ""},
		"other-issuer":   {"root cross", 3, ""},

		"serial-0":         {"root", 2, ""},
		"serial-negative":  {"root", 2, ""},
		"serial-long":      {"root", 2, ""},
		"sha224":           {"root", 0, "; signatures of algorithm 1.2.840.10045.4.3.1 are not supported"},
		"sha3":             {"root", 0, "; signatures of algorithm 2.16.840.1.101.3.4.3.10 are not supported"},
		"below-sha224":     {"root sha224", 0, "issuer CN=Root; signatures of algorithm 1.2.840.10045.4.3.1 are not supported"},
		"ed25519":          {"ed25519", 2, ""},
		"ed25519-negative": {"ed25519", 2, ""},
		"ed448":            {"root", 0, noPath + ": issuer CN=Goldilocks"},
		"brainpool":        {"root", 0, noPath + ": issuer CN=Brainpool"},
		"sm2":              {"root", 0, noPath + ": issuer CN=SM2"},
	} {
		t.Run(name, func(t *testing.T) {
			which, _, _ := strings.Cut(name, ",")
			checkPath(t, "ek-"+which, strings.Fields(tt.known), tt.length, tt.want)
		})
	}
}

func checkPath(t *testing.T, name string, known []string, length int, want string) {
	t.Helper()
	e, err := ParseEKCertificate(pathFile(t, name))
	if err != nil {
		t.Fatal(err)
	}
	var all, roots []byte
	var above [][]byte
	for _, k := range known {
		c, err := readCertificate(pathFile(t, k))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c.Raw...)
		if plain := plainly(c.Certificate); bytes.Equal(plain.RawIssuer, plain.RawSubject) {
			roots = append(roots, c.Raw...)
		} else {
			above = append(above, c.Raw)
		}
	}
	at := e.NotBefore.Add(30 * 24 * time.Hour)
	whole, err := ParseBundle(all)
	if err != nil {
		t.Fatal(err)
	}
	rooted, err := ParseBundle(roots)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(above)
	for how, b := range map[string]Bundle{"known": whole, "brought": rooted} {
		way, err := b.verify(e, above, at)
		switch {
		case want == "expired" && (err != nil || !way.expired()):
			t.Errorf("%s: %v, want an expired path", how, err)
		case want != "" && want != "expired" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %s", how, err, want)
		case want == "" && (err != nil || !way.certified() || len(way.chain) != length):
			t.Errorf("%s: %d certificates, %v, want %d", how, len(way.chain), err, length)
		case want == "":
			checkError(t, verifyPath(e, way.chain, b.Roots, at), nil)
		}
	}
}

// TestUnknownCurves refuses keys on curves that TPMs of this kind of certificate may have, with
// the name of the curve.
func TestUnknownCurves(t *testing.T) {
	for name, curve := range map[string]string{
		"on-brainpool": "1.3.36.3.3.2.8.1.1.7", "on-sm2": "1.2.156.10197.1.301",
	} {
		_, err := ParseEKCertificate(pathFile(t, "ek-"+name))
		if checkError(t, err, ErrEKCertificate); err == nil || !strings.Contains(err.Error(), "with the curve "+curve) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, root := range []string{"brainpool", "sm2", "ed448"} {
		_, err := ParseBundle(slices.Concat(pathFile(t, "root"), pathFile(t, root)))
		if err == nil || !strings.Contains(err.Error(), "line 11: public key of unknown algorithm ") {
			t.Errorf("%s: %v", root, err)
		}
	}
}
