package enroll

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// names are the Names of authorities in their own certificates, by their bytes and by what
// plainName makes of them.
type names map[string][]byte

func namesOf(authorities []*x509.Certificate) names {
	n := names{}
	for _, a := range authorities {
		n[string(a.RawSubject)] = a.RawSubject
		if plain := plainName(a.RawSubject); plain != "" && n[plain] == nil {
			n[plain] = a.RawSubject
		}
	}
	return n
}

// respelled returns a certificate with the name of its issuer as that has it in its own
// certificate: makers wrote one name with several types of strings, and the standard library
// compares the bytes. That changes where to look for the issuer, and not what it signed.
func respelled(c *x509.Certificate, authorities ...names) *x509.Certificate {
	for _, form := range []string{string(c.RawIssuer), plainName(c.RawIssuer)} {
		for _, n := range authorities {
			if name := n[form]; name != nil {
				again := *c
				again.RawIssuer = name
				return &again
			}
		}
	}
	return c
}

// sameWritten compares Names as RFC 5280 section 7.1 has it: neither the type of a string
// counts, nor its letter case, nor how much white space is in it.
func sameWritten(a, b []byte) bool {
	plain := plainName(a)
	return bytes.Equal(a, b) || plain != "" && plain == plainName(b)
}

// plainName returns the attributes of each part of a Name, in a form that no DER has, or nothing
// if it is empty or cannot be read.
func plainName(der []byte) string {
	sequence, err := proof.ParseName(der)
	if err != nil || len(sequence) == 0 {
		return ""
	}
	var parts [][]string
	for _, set := range sequence {
		var part []string
		for _, attribute := range set {
			text := strings.Join(strings.Fields(fmt.Sprint(attribute.Value)), " ")
			part = append(part, attribute.Type.String()+"="+strings.ToLower(text))
		}
		slices.Sort(part)
		parts = append(parts, part)
	}
	return fmt.Sprintf("%q", parts)
}
