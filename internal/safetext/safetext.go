// Package safetext writes text of others so that it cannot steer a terminal, or make a
// reader see another text than there is: control characters, the marks of
// bidirectional text, what else does not print, and bytes that are no UTF-8 are
// escaped.
package safetext

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// String escapes all that does not print, line ends too, as JSON and Go do: \u202e,
// and \xff for a byte that is no UTF-8.
func String(s string) string { return escape(s, "") }

// A Writer escapes what is written to it, but for line ends and tabs. What it makes of
// JSON is still the same JSON. A character must come in one piece.
type Writer struct{ W io.Writer }

// Write implements io.Writer.
func (w Writer) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.W, escape(string(p), "\n\t")); err != nil {
		return 0, err
	}
	return len(p), nil
}

func escape(s, keep string) string {
	if plain(s, keep) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case strconv.IsPrint(r) || strings.ContainsRune(keep, r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// plain reports whether there is nothing to escape.
func plain(s, keep string) bool {
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd") || !strconv.IsPrint(r) && !strings.ContainsRune(keep, r) {
			return false
		}
	}
	return true
}
