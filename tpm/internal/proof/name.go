package proof

import (
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// ParseName reads a Name (RFC 5280 section 4.1.2.4) whose strings may be of any type, in any
// character set. The values are strings.
func ParseName(der []byte) (name pkix.RDNSequence, err error) {
	var sets, set, one, value cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&sets, asn1.SEQUENCE) || !in.Empty() {
		return nil, errors.New("malformed name")
	}
	for !sets.Empty() {
		if !sets.ReadASN1(&set, asn1.SET) {
			return nil, errors.New("malformed name")
		}
		var part pkix.RelativeDistinguishedNameSET
		for !set.Empty() {
			var id stdasn1.ObjectIdentifier
			var tag asn1.Tag
			if !set.ReadASN1(&one, asn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&id) || !one.ReadAnyASN1(&value, &tag) {
				return nil, errors.New("malformed name")
			}
			part = append(part, pkix.AttributeTypeAndValue{Type: id, Value: Text(tag, value)})
		}
		name = append(name, part)
	}
	return name, nil
}

// Text returns the text of a string of any type. Text declared as a smaller character set
// is read as UTF-8, or as ISO 8859-1 if it is not valid UTF-8.
func Text(tag asn1.Tag, value []byte) string {
	const universalString, bmpString = asn1.Tag(28), asn1.Tag(30)
	var units []uint16
	var runes []rune
	switch {
	case tag == bmpString:
		for ; len(value) >= 2; value = value[2:] {
			units = append(units, uint16(value[0])<<8|uint16(value[1]))
		}
		return strings.Trim(string(utf16.Decode(units)), "\x00")
	case tag == universalString:
		for ; len(value) >= 4; value = value[4:] {
			runes = append(runes, rune(value[0])<<24|rune(value[1])<<16|rune(value[2])<<8|rune(value[3]))
		}
	case utf8.Valid(value):
		runes = []rune(string(value))
	default:
		for _, b := range value {
			runes = append(runes, rune(b))
		}
	}
	return strings.Trim(string(runes), "\x00")
}
