package safetext

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestString(t *testing.T) {
	for text, want := range map[string]string{
		"camera 7, große Straße 東京": "camera 7, große Straße 東京",
		"":                          "",
		"\x1b[31mred":               `\u001b[31mred`,
		"a\nb\tc\rd":                `a\u000ab\u0009c\u000dd`,
		"\u202egnp.exe":             `\u202egnp.exe`,
		"\u2066\u200b\ufeff":        `\u2066\u200b\ufeff`,
		"\u009b31m\x7f":             `\u009b31m\u007f`,
		"\xff\xc3":                  `\xff\xc3`,
		"\ufffd":                    "\ufffd",
		"\U000e0041":                `\udb40\udc41`,
	} {
		if got := String(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestWriterKeepsJSON(t *testing.T) {
	said := "a\u202eb\u009bc\U000e0041\u2028\n\x1b"
	line, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if n, err := (Writer{&out}).Write(append(line, '\n')); n != len(line)+1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	var read string
	if err := json.Unmarshal(out.Bytes(), &read); err != nil || read != said {
		t.Errorf("%s is read as %q, %v", out.Bytes(), read, err)
	}
	if strings.ContainsFunc(strings.TrimSuffix(out.String(), "\n"), func(r rune) bool { return !strconv.IsPrint(r) }) {
		t.Errorf("%q", out.String())
	}
}

// FuzzString finds text that still steers.
func FuzzString(f *testing.F) {
	f.Add("\u202e\x1b[0m\xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := String(text)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Errorf("%q: %q", text, got)
		}
	})
}

// TestStream writes text byte by byte: it comes out as it does in one piece.
func TestStream(t *testing.T) {
	for _, text := range []string{"", "große 東京 \U0001f600\n", "\x1b[2J\u202e\u009b", "\xe6\x9d", "\xff\xf0\x9f\x98", "\xc3(\xe6\x9d\n", "\U0001f600\xf0"} {
		var whole, pieces bytes.Buffer
		Writer{&whole}.Write([]byte(text))
		s := &Stream{W: &pieces}
		for i := range len(text) {
			if n, err := s.Write([]byte{text[i]}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := s.Close(); err != nil || pieces.String() != whole.String() {
			t.Errorf("%q: %q, want %q, %v", text, pieces.String(), whole.String(), err)
		}
	}
}

// FuzzStream cuts text in two anywhere.
func FuzzStream(f *testing.F) {
	f.Add("\u202e東\xe6\x9d", 4)
	f.Fuzz(func(t *testing.T, text string, at int) {
		at = min(max(at, 0), len(text))
		var whole, pieces bytes.Buffer
		Writer{&whole}.Write([]byte(text))
		s := &Stream{W: &pieces}
		s.Write([]byte(text[:at]))
		s.Write([]byte(text[at:]))
		if s.Close(); pieces.String() != whole.String() {
			t.Errorf("%q at %d: %q, want %q", text, at, pieces.String(), whole.String())
		}
	})
}

// TestBrief bounds and escapes what an error quotes, and keeps what it wraps.
func TestBrief(t *testing.T) {
	cause := errors.New("cause")
	if got := Brief(cause); got != cause || Brief(nil) != nil {
		t.Error(got, Brief(nil))
	}
	for text, want := range map[string]string{
		"\x1b[2J": `: cause\u001b[2J`, "\xff": `: cause\xff`, strings.Repeat("ü", 5000): "",
	} {
		err := Brief(fmt.Errorf(": %w%s", cause, text))
		if !errors.Is(err, cause) || len(err.Error()) > longestError+len("…") || want != "" && err.Error() != want {
			t.Errorf("%q: %.200q", text[:1], err)
		}
	}
}
