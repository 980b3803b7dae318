package wire

import (
	"strconv"
	"sync"
	"unicode/utf8"
)

// Encoder writes one object without whitespace, its members in the order of the calls.
// The zero Encoder is ready for use.
//
// Calls must nest as the object does. The Encoder does not check that, nor that names
// are unique: the structure is determined by the program and not by its input.
type Encoder struct{ buf []byte }

// NewEncoder returns an Encoder with room for sizeHint bytes.
func NewEncoder(sizeHint int) *Encoder {
	return &Encoder{buf: make([]byte, 0, max(sizeHint, 0))}
}

// EncoderOn returns an Encoder that overwrites buf while the object fits.
func EncoderOn(buf []byte) *Encoder { return &Encoder{buf: buf[:0]} }

// scratch holds the Encoders returned by Free.
var scratch = sync.Pool{New: func() any { return new(Encoder) }}

// Scratch returns an Encoder for an object that is needed only briefly: call Free
// afterwards.
func Scratch(sizeHint int) *Encoder {
	e := scratch.Get().(*Encoder)
	if cap(e.buf) < sizeHint {
		e.buf = make([]byte, 0, sizeHint)
	}
	return e
}

// Free makes the buffer available again, with nothing left in it. The result of Encoded
// is then no longer valid.
func (e *Encoder) Free() {
	wipe(e.buf)
	e.buf = e.buf[:0]
	scratch.Put(e)
}

// Encoded returns the finished object. It shares the buffer of the Encoder, which must no
// longer be used.
func (e *Encoder) Encoded() []byte { return e.buf }

// Begin opens the outermost object or an element of an array.
func (e *Encoder) Begin() {
	e.separate()
	e.buf = append(e.buf, '{')
}

// BeginMember opens a member that is an object.
func (e *Encoder) BeginMember(name string) {
	e.name(name)
	e.buf = append(e.buf, '{')
}

// End closes what [Encoder.Begin] or [Encoder.BeginMember] opened.
func (e *Encoder) End() { e.buf = append(e.buf, '}') }

// BeginArray opens a member that is an array.
func (e *Encoder) BeginArray(name string) {
	e.name(name)
	e.buf = append(e.buf, '[')
}

// EndArray closes what [Encoder.BeginArray] opened.
func (e *Encoder) EndArray() { e.buf = append(e.buf, ']') }

// String writes a string. Bytes that are not UTF-8 become U+FFFD, so the caller must
// avoid them in anything that has to be preserved.
func (e *Encoder) String(name, v string) {
	e.name(name)
	e.buf = appendString(e.buf, v)
}

// Secret writes a string of bytes that will be wiped, without copying them elsewhere.
func (e *Encoder) Secret(name string, v []byte) {
	e.name(name)
	e.buf = appendString(e.buf, v)
}

// Int writes an integer.
func (e *Encoder) Int(name string, v int64) {
	e.name(name)
	e.buf = strconv.AppendInt(e.buf, v, 10)
}

// Bool writes a boolean.
func (e *Encoder) Bool(name string, v bool) {
	e.name(name)
	e.buf = strconv.AppendBool(e.buf, v)
}

// Bytes writes binary data in Base64.
func (e *Encoder) Bytes(name string, v []byte) {
	e.name(name)
	e.buf = append(e.buf, '"')
	e.buf = appendBase64(e.buf, v)
	e.buf = append(e.buf, '"')
}

// Raw writes an object that is already encoded.
func (e *Encoder) Raw(name string, object []byte) {
	e.name(name)
	e.buf = append(e.buf, object...)
}

// RawElement writes an element of an array that is already encoded.
func (e *Encoder) RawElement(object []byte) {
	e.separate()
	e.buf = append(e.buf, object...)
}

// Strings writes an array of strings.
func (e *Encoder) Strings(name string, v []string) {
	e.BeginArray(name)
	for _, s := range v {
		e.separate()
		e.buf = appendString(e.buf, s)
	}
	e.EndArray()
}

func (e *Encoder) name(name string) {
	e.separate()
	e.buf = appendString(e.buf, name)
	e.buf = append(e.buf, ':')
}

// separate writes a comma unless the value is the first one. The preceding byte shows
// that, because no value ends with an opening bracket or brace.
func (e *Encoder) separate() {
	if len(e.buf) == 0 {
		return
	}
	if last := e.buf[len(e.buf)-1]; last != '{' && last != '[' {
		e.buf = append(e.buf, ',')
	}
}

// appendString quotes s. In addition to what RFC 8259, section 7, requires, it escapes
// what other MSL stacks escape: the solidus of "</" and the characters U+0080 to U+009F
// and U+2000 to U+20FF, among them the line separators that end a string in older
// JavaScript.
func appendString[T string | []byte](buf []byte, s T) []byte {
	buf = append(buf, '"')
	start := 0
	for i := 0; i < len(s); {
		if isVerbatim(s[i]) {
			i++
			continue
		}
		r, size := decodeRune(s[i:])
		if !needsEscape(s, i, r, size) {
			i += size
			continue
		}
		buf = append(buf, s[start:i]...)
		buf = appendEscape(buf, r)
		i += size
		start = i
	}
	buf = append(buf, s[start:]...)
	return append(buf, '"')
}

// isVerbatim reports whether c is a character that is never escaped.
func isVerbatim(c byte) bool {
	return c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' && c != '/'
}

func decodeRune[T string | []byte](s T) (rune, int) {
	// A copy of at most one character stays on the stack.
	return utf8.DecodeRuneInString(string(s[:min(len(s), utf8.UTFMax)]))
}

func needsEscape[T string | []byte](s T, i int, r rune, size int) bool {
	switch {
	case r == '/':
		return i > 0 && s[i-1] == '<'
	case r == utf8.RuneError:
		return size == 1
	}
	return r < 0xa0 || 0x2000 <= r && r < 0x2100
}

func appendEscape(buf []byte, r rune) []byte {
	switch r {
	case '"', '\\', '/':
		return append(buf, '\\', byte(r))
	case '\b':
		return append(buf, `\b`...)
	case '\f':
		return append(buf, `\f`...)
	case '\n':
		return append(buf, `\n`...)
	case '\r':
		return append(buf, `\r`...)
	case '\t':
		return append(buf, `\t`...)
	case utf8.RuneError:
		return utf8.AppendRune(buf, r)
	}
	const hex = "0123456789abcdef"
	return append(buf, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}
