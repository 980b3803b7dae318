package wire

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plainLen returns the number of bytes at the start of s that stand for
// themselves in a JSON string: those before the first quotation mark, reverse
// solidus or control character.
//
// Payloads are strings of megabytes, so it looks at eight bytes at a time, or four times
// eight. (x-n*ones)&^x has the high bit set in the lowest byte of x that is less than n,
// and possibly in bytes above it. The first hit is always right. With one bit flipped,
// the quotation mark is next to the control characters, and nothing else is.
func plainLen(s []byte) int {
	i := 0
	for ; i+32 <= len(s); i += 32 {
		b := (*[32]byte)(s[i:])
		if (suspect(b[:8])|suspect(b[8:16])|suspect(b[16:24])|suspect(b[24:]))&highs != 0 {
			break
		}
	}
	for ; i+8 <= len(s); i += 8 {
		if hit := special(s[i:]); hit != 0 {
			return i + bits.TrailingZeros64(hit)/8
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

// special has a bit set in the first byte of eight that is not plain.
func special(s []byte) uint64 {
	x := binary.LittleEndian.Uint64(s)
	low := x ^ ('"'^0x20)*ones
	slash := x ^ '\\'*ones
	return ((low-0x21*ones)&^low | (slash-ones)&^slash) & highs
}

// suspect is the cheap part of special: its high bits are set if those of special are,
// and also for some text that is not ASCII.
func suspect(s []byte) uint64 {
	x := binary.LittleEndian.Uint64(s)
	low := x ^ ('"'^0x20)*ones
	slash := x ^ '\\'*ones
	return (low - 0x21*ones) | (slash - ones)
}

// unescape resolves the escapes of a string the parser has accepted.
func unescape(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		n := plainLen(s[i:])
		out = append(out, s[i:i+n]...)
		i += n
		if i == len(s) {
			break
		}
		r, size := escaped(s[i:])
		out = utf8.AppendRune(out, r)
		i += size
	}
	return out
}

// escaped decodes the escape at the start of s, surrogate pairs included. The
// size is 0 if it is not valid.
func escaped(s []byte) (r rune, size int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		return escapedRune(s)
	}
	return 0, 0
}

func escapedRune(s []byte) (r rune, size int) {
	r = codeUnit(s)
	if r < 0 {
		return 0, 0
	}
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	// A surrogate without its pair is not a character, and has no UTF-8 encoding.
	low := codeUnit(s[6:])
	if low < 0 {
		return 0, 0
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// codeUnit decodes the \uXXXX at the start of s, or returns -1 if there is none.
func codeUnit(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range s[2:6] {
		d := hexDigit(c)
		if d < 0 {
			return -1
		}
		r = r<<4 | d
	}
	return r
}

func hexDigit(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c && c <= 'f':
		return rune(c - 'a' + 10)
	case 'A' <= c && c <= 'F':
		return rune(c - 'A' + 10)
	}
	return -1
}
