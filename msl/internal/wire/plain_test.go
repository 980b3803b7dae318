package wire

import "testing"

// Every byte at every place of a word ends plain text, or does not, however the others
// are.
func TestPlainLen(t *testing.T) {
	for c := range 256 {
		for at := range 75 {
			for _, filler := range []byte{' ', '!', '#', 'a', 0x7f, 0x80, 0xff} {
				s := make([]byte, 75)
				for i := range s {
					s[i] = filler
				}
				s[at] = byte(c)
				want := len(s)
				if c < 0x20 || c == '"' || c == '\\' {
					want = at
				}
				if got := plainLen(s); got != want {
					t.Fatalf("%#x at %d among %#x: %d", c, at, filler, got)
				}
			}
		}
	}
}
