package safetext

import (
	"io"
	"unicode/utf8"
)

// A Stream is a Writer for text in pieces that may split a character. It holds back the
// first part of a character until the next Write or Close.
type Stream struct {
	W    io.Writer
	rest []byte
}

// Write implements io.Writer.
func (s *Stream) Write(p []byte) (int, error) {
	text := append(s.rest, p...)
	whole := len(text) - partial(text)
	s.rest = append([]byte(nil), text[whole:]...)
	if _, err := (Writer{s.W}).Write(text[:whole]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close writes the incomplete character held back, if any.
func (s *Stream) Close() error {
	_, err := (Writer{s.W}).Write(s.rest)
	s.rest = nil
	return err
}

// partial returns how many bytes at the end may be the beginning of a character.
func partial(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if end := text[len(text)-n:]; utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return 0
			}
			return n
		}
	}
	return 0
}
