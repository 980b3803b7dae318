package enroll

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// names are the Names of authorities in their own certificates, by the bytes of the Name
// and by its plainName.
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

// respelled returns a certificate with its issuer's name replaced by the spelling in the
// issuer's own certificate: manufacturers wrote one name with several string types, and
// the standard library compares the bytes. That changes where to look for the issuer, not
// what it signed.
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

// sameWritten compares Names as in RFC 5280 section 7.1: string types, letter case and
// the amount of white space do not matter.
func sameWritten(a, b []byte) bool {
	plain := plainName(a)
	return bytes.Equal(a, b) || plain != "" && plain == plainName(b)
}

// plainName returns the attributes of each part of a Name, in a form that no DER has, or
// "" if it is empty or cannot be read.
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
