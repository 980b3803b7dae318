package enroll

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// plainly returns a certificate whose names are replaced by their plainName:
// manufacturers wrote one name with several string types, and the standard library
// compares the bytes. That changes where to look for the issuer, not what it signed.
func plainly(c *x509.Certificate) *x509.Certificate {
	again := *c
	again.RawIssuer = []byte(cmp.Or(plainName(c.RawIssuer), string(c.RawIssuer)))
	again.RawSubject = []byte(cmp.Or(plainName(c.RawSubject), string(c.RawSubject)))
	return &again
}

// plainName returns the attributes of each part of a Name, in a form that no DER has, or
// "" if it is empty or cannot be read. It is the same for names that are equal by RFC 5280
// section 7.1: string types, letter case and the amount of white space do not matter.
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
