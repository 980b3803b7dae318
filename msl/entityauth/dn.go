package entityauth

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf8"
)

// shortNames are the attribute types that have a name in RFC 2253 section 2.3; all others
// are written as object identifiers.
var shortNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU",
	"2.5.4.6": "C", "2.5.4.9": "STREET", "0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// DistinguishedName writes a DER encoded name in the form of RFC 2253: last element
// first, separated by commas without spaces. An attribute without a short name, or whose
// value is not text, is written as an object identifier and the hexadecimal DER of its
// value.
func DistinguishedName(der []byte) (string, error) {
	var name []asn1.RawValue // of SETs
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return "", errors.New("entityauth: malformed distinguished name")
	}
	elements := make([]string, len(name))
	for i, set := range name {
		text, err := relativeName(set.FullBytes)
		if err != nil {
			return "", err
		}
		elements[len(name)-1-i] = text
	}
	return strings.Join(elements, ","), nil
}

func relativeName(der []byte) (string, error) {
	var set []attribute
	if _, err := asn1.UnmarshalWithParams(der, &set, "set"); err != nil {
		return "", errors.New("entityauth: malformed distinguished name")
	}
	parts := make([]string, len(set))
	for i, a := range set {
		name, known := shortNames[a.Type.String()]
		if !known {
			name = a.Type.String()
		}
		if value, ok := text(a.Value); ok && known {
			parts[i] = name + "=" + escapeValue(value)
		} else {
			parts[i] = name + "=#" + hex.EncodeToString(a.Value.FullBytes)
		}
	}
	return strings.Join(parts, "+"), nil
}

// text returns a value that is a directory string.
func text(v asn1.RawValue) (s string, ok bool) {
	if v.Tag == asn1.TagOctetString || v.Tag == asn1.TagNumericString {
		return "", false
	}
	_, err := asn1.Unmarshal(v.FullBytes, &s)
	return s, err == nil && utf8.ValidString(s)
}

// escapeValue escapes what RFC 2253 section 2.4 requires, and the equals sign, the number
// sign and NUL as other MSL stacks do: the text is an identity, so all stacks must write
// it the same way.
func escapeValue(s string) string {
	var b strings.Builder
	blanks := len(s) - len(strings.TrimLeft(s, " "))
	end := len(strings.TrimRight(s, " "))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == 0:
			b.WriteString(`\00`)
			continue
		case i < blanks || i >= end, strings.IndexByte(`,=+<>#;"\`, c) >= 0:
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
