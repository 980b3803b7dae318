// Package safetext writes untrusted text so that it cannot control a terminal or look
// like different text: it escapes control characters, bidirectional formatting
// characters, anything else that does not print, and bytes that are not UTF-8.
package safetext

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// String escapes everything that does not print, including line ends, as JSON and Go
// do: \u202e, and \xff for a byte that is not UTF-8.
func String(s string) string { return escape(s, "") }

// First returns a text of more than that many bytes without its end.
func First(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// A Writer escapes what is written to it, except for line ends and tabs. Escaped JSON
// is still the same JSON. A character must not be split between two writes.
type Writer struct{ W io.Writer }

// Write implements io.Writer.
func (w Writer) Write(p []byte) (int, error) {
	if !slices.ContainsFunc(p, special) {
		return w.W.Write(p)
	}
	if _, err := io.WriteString(w.W, escape(string(p), "\n\t")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// special reports whether a byte may have to be escaped; most texts contain none.
func special(b byte) bool { return b < ' ' && b != '\n' && b != '\t' || b >= 0x7f }

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
