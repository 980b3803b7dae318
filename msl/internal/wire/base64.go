package wire

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
)

// DecodeBase64 decodes the standard alphabet of RFC 4648, section 4. The padding is
// mandatory. Spaces, tabs, carriage returns and line feeds are skipped anywhere, and
// the unused bits of the last character may have any value. Anything else is [ErrType],
// which is how MSL distinguishes a binary value from other strings.
func DecodeBase64[S []byte | string](s S) ([]byte, error) {
	return decodeBase64(make([]byte, base64.StdEncoding.DecodedLen(len(s))), []byte(s))
}

// decodeBase64 decodes into dst, which is as long as the result of s may be. The two may
// begin at the same byte.
func decodeBase64(dst, s []byte) ([]byte, error) {
	written, t := 0, digits
	for at := 0; at+8 <= len(s) && written+8 <= len(dst); at, written = at+8, written+6 {
		in, out := s[at:at+8], dst[written:written+8]
		high := t[0][in[0]] | t[1][in[1]] | t[2][in[2]] | t[3][in[3]]
		low := t[0][in[4]] | t[1][in[5]] | t[2][in[6]] | t[3][in[7]]
		if (high|low)&noDigit != 0 {
			break
		}
		binary.BigEndian.PutUint64(out, uint64(high)<<40|uint64(low)<<16)
	}
	s = s[written/6*8:]
	n, err := decodeRest(dst[written:], s)
	if err != nil {
		return nil, ErrType
	}
	return dst[:written+n], nil
}

// decodeRest decodes what decodeBase64 leaves: the last characters, or what has padding
// or blanks in it.
func decodeRest(dst, rest []byte) (int, error) {
	var few [16]byte // mostly enough
	return base64.StdEncoding.Decode(dst, slices.DeleteFunc(append(few[:0], rest...), isSpace))
}

// EncodeBase64 encodes b in the standard alphabet of RFC 4648, section 4, with
// padding and without line breaks.
func EncodeBase64(b []byte) string { return string(appendBase64(nil, b)) }

// appendBase64 appends the encoding of b to buf.
func appendBase64(buf, b []byte) []byte {
	at := len(buf)
	buf = slices.Grow(buf, base64.StdEncoding.EncodedLen(len(b)))
	buf = buf[:at+base64.StdEncoding.EncodedLen(len(b))]
	for ; len(b) >= 8; b, at = b[6:], at+8 {
		v, to := binary.BigEndian.Uint64(b), buf[at:at+8]
		binary.BigEndian.PutUint64(to, uint64(pairs[v>>52])<<48|uint64(pairs[v>>40&0xfff])<<32|
			uint64(pairs[v>>28&0xfff])<<16|uint64(pairs[v>>16&0xfff]))
	}
	base64.StdEncoding.Encode(buf[at:], b)
	return buf
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// Tables of one look-up for a character in its place among four, and for two characters
// of 12 bits: the strings are as long as the payloads, and the standard library looks up
// single characters.
var (
	digits = &[4][256]uint32{digitsAt(18), digitsAt(12), digitsAt(6), digitsAt(0)}
	pairs  = pairsOf(alphabet)
)

// noDigit is a bit of what is not in the alphabet.
const noDigit = 1 << 31

func digitsAt(shift int) (t [256]uint32) {
	for i := range t {
		t[i] = noDigit
	}
	for v, c := range []byte(alphabet) {
		t[c] = uint32(v) << shift
	}
	return t
}

func pairsOf(alphabet string) (t [1 << 12]uint16) {
	for v := range t {
		t[v] = uint16(alphabet[v>>6])<<8 | uint16(alphabet[v&63])
	}
	return t
}
