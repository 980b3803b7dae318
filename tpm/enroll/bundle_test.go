package enroll

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strconv"
	"strings"
	"testing"
)

// TestBundles reads files of roots as they come, and drops nothing in silence.
func TestBundles(t *testing.T) {
	a, b := newMaker(t, "A").cert, newMaker(t, "B").cert
	text, more := PEM("CERTIFICATE", a.Raw), PEM("CERTIFICATE", b.Raw)
	ending := endingInSpace(t)
	m, alone := newMaker(t, "alone"), &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "alone"}, BasicConstraintsValid: true}
	for name, tt := range map[string]struct {
		text []byte
		want string
	}{
		"PEM":            {append(bytes.Clone(text), more...), ""},
		"with remarks":   {append([]byte("# A\n"), text...), ""},
		"DER":            {a.Raw, ""},
		"DER, two":       {append(bytes.Clone(a.Raw), b.Raw...), ""},
		"DER, lines":     {append(bytes.Clone(a.Raw), "\r\n"...), ""},
		"DER, as space":  {ending, ""},
		"DER, as spaces": {append(append(bytes.Clone(ending), b.Raw...), '\n'), ""},
		"DER, cut off":   {a.Raw[:len(a.Raw)-1], "malformed"},
		"DER, and more":  {append(bytes.Clone(a.Raw), 'x'), "malformed"},
		"joined":         {append(bytes.TrimSpace(text), more...), "line 1: a damaged block"},
		"joined, second": {append(append(bytes.Clone(more), bytes.TrimSpace(text)...), more...), "line " + strconv.Itoa(1+bytes.Count(more, []byte("\n"))) + ":"},
		"cut off":        {append(bytes.Clone(text), more[:100]...), "a damaged block"},
		"a key":          {append(bytes.Clone(text), PEM("PRIVATE KEY", []byte{1})...), "PRIVATE KEY"},
		"no authority":   {m.issue(alone, m.key.Public(), alone).Raw, "no root"},
		"empty":          {nil, "no root"},
		"words":          {[]byte("none"), "malformed"},
	} {
		bundle, err := ParseBundle(tt.text)
		if tt.want == "" && (err != nil || bundle.Roots == nil) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// endingInSpace makes a certificate whose last byte is white space in a text.
func endingInSpace(t *testing.T) []byte {
	t.Helper()
	m := newMaker(t, "space")
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "space"}, IsCA: true, BasicConstraintsValid: true}
	for {
		der := m.issue(template, m.key.Public(), template).Raw
		if len(bytes.TrimSpace(der)) < len(der) {
			return der
		}
	}
}
