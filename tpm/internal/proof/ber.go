package proof

import (
	"bytes"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// deepest is how deep elements may be nested: a certificate has a dozen levels.
const deepest = 24

// extent returns the sizes in bytes of the header and of the whole element at the start
// of in (X.690 section 8.1), or 0. Its length may have more bytes than necessary, or be
// indefinite. Elements may be cut off unless their length is indefinite.
func extent(in []byte, depth int) (header, size int) {
	if len(in) < 2 || in[0]&0x1f == 0x1f || depth > deepest { // tags of several bytes do not occur in certificates
		return 0, 0
	}
	switch length := int(in[1]); {
	case length < 0x80:
		return 2, 2 + length
	case length == 0x80 && in[0]&0x20 != 0:
		return 2, indefinite(in, depth)
	case length == 0x80 || len(in) < 2+length-0x80:
		return 0, 0
	default:
		header = 2 + length - 0x80
	}
	for _, b := range in[2:header] {
		if size = size<<8 | int(b); size > 1<<24 {
			return 0, 0
		}
	}
	return header, header + size
}

// indefinite returns the size of an element that ends with an empty one of tag 0, or 0.
func indefinite(in []byte, depth int) int {
	for at := 2; ; {
		if bytes.HasPrefix(in[min(at, len(in)):], []byte{0, 0}) {
			return at + 2
		}
		_, size := extent(in[min(at, len(in)):], depth+1)
		if size == 0 {
			return 0
		}
		at += size
	}
}

// content returns the content of the element at the start of in, and what follows it. ok
// is false if there is none.
func content(in []byte, depth int) (inner, rest []byte, ok bool) {
	header, size := extent(in, depth)
	if size == 0 || size > len(in) {
		return nil, nil, false
	}
	inner = in[header:size]
	if in[1] == 0x80 {
		inner = inner[:len(inner)-2]
	}
	return inner, in[size:], true
}

// toDER rewrites elements with lengths as in DER, and strings in parts as one (X.690
// sections 8.7.3, 8.21.3 and 10). Nothing else of BER is changed. It returns nil if the
// input does not consist of elements.
func toDER(in []byte) []byte { return rewritten(in, 0) }

func rewritten(in []byte, depth int) []byte {
	out := []byte{}
	for len(in) > 0 {
		tag := in[0]
		inner, rest, ok := content(in, depth)
		if ok && tag&0x20 != 0 {
			inner = rewritten(inner, depth+1)
			ok = inner != nil
		}
		if ok && inParts(tag) {
			tag &^= 0x20
			inner, ok = joined(tag, inner)
		}
		if !ok {
			return nil
		}
		var b cryptobyte.Builder
		b.AddASN1(asn1.Tag(tag), func(b *cryptobyte.Builder) { b.AddBytes(inner) })
		out, in = append(out, b.BytesOrPanic()...), rest
	}
	return out
}

// inParts reports whether a tag is that of a string in parts.
func inParts(tag byte) bool {
	return tag < 0x40 && tag&0x20 != 0 && tag != byte(asn1.SEQUENCE) && tag != byte(asn1.SET)
}

// joined returns the content of a string whose parts are in DER. Parts of a bit string
// begin with the number of unused bits in their last byte.
func joined(tag byte, parts cryptobyte.String) (whole []byte, ok bool) {
	for !parts.Empty() {
		var part cryptobyte.String
		if !parts.ReadAnyASN1(&part, new(asn1.Tag)) {
			return nil, false
		}
		if tag == byte(asn1.BIT_STRING) && whole != nil {
			if len(part) == 0 || whole[0] != 0 {
				return nil, false
			}
			whole[0], part = part[0], part[1:]
		}
		whole = append(whole, part...)
	}
	return whole, true
}
