package wire

import (
	"bytes"
	"slices"

	"github.com/segmentio/asm/base64"
)

// DecodeBase64 decodes the standard alphabet of RFC 4648, section 4. The padding is
// mandatory. Spaces, tabs, carriage returns and line feeds are skipped anywhere, and
// the unused bits of the last character may have any value. Anything else is [ErrType],
// which is how MSL distinguishes a binary value from other strings.
func DecodeBase64[S []byte | string](s S) ([]byte, error) {
	return decodeBase64(make([]byte, base64.StdEncoding.DecodedLen(len(s))), []byte(s))
}

// decodeBase64 decodes into dst, which has room for the longest result of s. The two may
// begin at the same byte.
func decodeBase64(dst, s []byte) ([]byte, error) {
	if bytes.IndexByte(s, ' ') >= 0 || bytes.IndexByte(s, '\t') >= 0 { // line breaks are skipped anyway
		s = slices.DeleteFunc(bytes.Clone(s), isSpace)
	}
	n, err := base64.StdEncoding.Decode(dst, s)
	if err != nil {
		return nil, ErrType
	}
	return dst[:n], nil
}

// appendBase64 appends the encoding of b in the standard alphabet of RFC 4648, section 4,
// with padding and without line breaks to buf.
func appendBase64(buf, b []byte) []byte {
	at, size := len(buf), base64.StdEncoding.EncodedLen(len(b))
	buf = slices.Grow(buf, size)[:at+size]
	base64.StdEncoding.Encode(buf[at:], b)
	return buf
}
