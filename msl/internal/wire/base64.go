package wire

import "encoding/base64"

// DecodeBase64 decodes the standard alphabet of RFC 4648, section 4. The padding is
// mandatory. Spaces, tabs, carriage returns and line feeds are skipped anywhere, and
// the unused bits of the last character may have any value. Anything else is [ErrType],
// which is how MSL distinguishes a binary value from other strings.
func DecodeBase64[S []byte | string](s S) ([]byte, error) {
	src := []byte(s)
	dst := make([]byte, base64.StdEncoding.DecodedLen(len(src)))
	n, err := base64.StdEncoding.Decode(dst, src)
	if err != nil {
		// The standard decoder skips only carriage return and line feed.
		n, err = base64.StdEncoding.Decode(dst, withoutBlanks(src))
	}
	if err != nil {
		return nil, ErrType
	}
	return dst[:n], nil
}

// EncodeBase64 encodes b in the standard alphabet of RFC 4648, section 4, with
// padding and without line breaks.
func EncodeBase64(b []byte) string {
	return base64.StdEncoding.EncodeToString(b)
}

func withoutBlanks(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for _, c := range s {
		if c != ' ' && c != '\t' {
			out = append(out, c)
		}
	}
	return out
}
