package enroll

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
)

// respelled returns a certificate with the name of its issuer as that has it in its own
// certificate: makers wrote one name with several types of strings, and the standard library
// compares the bytes. That changes where to look for the issuer, and not what it signed.
func respelled(c *x509.Certificate, authorities []*x509.Certificate) *x509.Certificate {
	if slices.ContainsFunc(authorities, func(a *x509.Certificate) bool { return bytes.Equal(a.RawSubject, c.RawIssuer) }) {
		return c
	}
	for _, a := range authorities {
		if sameWritten(a.RawSubject, c.RawIssuer) {
			again := *c
			again.RawIssuer = a.RawSubject
			return &again
		}
	}
	return c
}

// sameWritten compares Names as RFC 5280 section 7.1 has it: neither the type of a string
// counts, nor its letter case, nor how much white space is in it.
func sameWritten(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, y := plainName(a), plainName(b)
	return len(x) > 0 && slices.EqualFunc(x, y, slices.Equal)
}

// plainName returns the attributes of each part of a Name, or nothing if it cannot be read.
func plainName(der []byte) (parts [][]string) {
	var names pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 {
		return nil
	}
	for _, set := range names {
		var part []string
		for _, attribute := range set {
			text := strings.Join(strings.Fields(fmt.Sprint(attribute.Value)), " ")
			part = append(part, attribute.Type.String()+"="+strings.ToLower(text))
		}
		slices.Sort(part)
		parts = append(parts, part)
	}
	return parts
}
