package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

// A judge decides by encoding/json, and what MSL adds to it, whether bytes are an object: no
// nulls, no two members of one name, no half of a surrogate pair, limits on depth and number.
type judge struct {
	tokens *json.Decoder
	nodes  int
	depth  int
}

func accepts(b []byte) bool {
	if !bytes.HasPrefix(b, []byte("{")) || !bytes.HasSuffix(b, []byte("}")) || !json.Valid(b) || !utf8.Valid(b) || lone(b) {
		return false
	}
	j := &judge{tokens: json.NewDecoder(bytes.NewReader(b))}
	j.tokens.UseNumber()
	return j.value() && j.nodes-1 <= DefaultMembers
}

// lone reports whether a string of valid JSON has an escaped surrogate without its other half.
func lone(b []byte) bool {
	unit := func(b []byte) (r rune) {
		if len(b) > 5 && b[1] == 'u' {
			fmt.Sscanf(string(b[2:6]), "%x", &r)
		}
		return r
	}
	for i := bytes.IndexByte(b, '\\'); i >= 0 && i < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		if r := unit(b[i:]); utf16.IsSurrogate(r) {
			if r >= 0xdc00 || b[i+6] != '\\' || unit(b[i+6:]) < 0xdc00 || unit(b[i+6:]) > 0xdfff {
				return true
			}
			i += 6
		}
		i++
	}
	return false
}

func (j *judge) value() bool {
	j.nodes++
	t, err := j.tokens.Token()
	if err != nil || t == nil {
		return false
	}
	open, composite := t.(json.Delim)
	if !composite {
		return true
	}
	if j.depth++; j.depth > DefaultDepth {
		return false
	}
	names := map[any]bool{}
	for j.tokens.More() {
		if open == '{' {
			name, _ := j.tokens.Token()
			if names[name] {
				return false
			}
			names[name] = true
		}
		if !j.value() {
			return false
		}
	}
	j.depth--
	_, err = j.tokens.Token()
	return err == nil
}

// sameValue reports whether a value is what encoding/json reads.
func sameValue(v Value, want any) bool {
	switch want := want.(type) {
	case string:
		got, err := v.Text()
		return err == nil && got == want
	case json.Number:
		return string(v.Raw()) == want.String()
	case bool:
		got, err := v.Bool()
		return err == nil && got == want
	case []any:
		got, err := v.Elements()
		for i := range got {
			if len(got) == len(want) && !sameValue(got[i], want[i]) {
				return false
			}
		}
		return err == nil && len(got) == len(want)
	case map[string]any:
		o, err := v.Object()
		for name, w := range want {
			if m, ok := o.Value(name); err == nil && (!ok || !sameValue(m, w)) {
				return false
			}
		}
		return err == nil && o.Len() == len(want)
	}
	return false
}

// oddObjects are some that are valid, and some that nearly are.
func oddObjects() (list []string) {
	for _, value := range []string{
		`0`, `00`, `-0`, `-`, `1.`, `.1`, `1e5`, `1e`, `1E+5`, `1e+`, `-1.5E-300`, `+1`, `9223372036854775808`, `1e99999`, `0x1`, `NaN`, `Infinity`,
		`""`, `"\u0000"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00"`, `"\ud83dx"`, `"\ud83d\ud83d\ude00"`, `"\ud83d\\ude00"`, `"\uD83D\uDE00"`, `"\u12"`, `"\u12g4"`,
		`"\x41"`, `"\'"`, `"\/"`, `"\\\\"`, `"\\\"`, "\"\x7f\"", "\"\x1f\"", "\"\t\"", "\"\u2028\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\ufeff\"", "\"\ufffd\"",
		`true`, `TRUE`, `tru`, `truex`, `null`, `[null]`, `{"x":null}`, `[]`, `[,]`, `[1,]`, `[1 2]`, `{,}`, `{"a":1,}`, `{"a" 1}`, `{a:1}`, `{'a':1}`, `[1]]`, `{"a":1}}`, `'x'`,
		`{"a":1,"\u0061":2}`, `{"":1,"":2}`, `{"a":1,"b":{"a":1}}`, `{"\ud83d\ude00":1,"😀":2}`, `{"A":1,"a":2}`, "[1\v]", "[1\f]", "[1\u00a0]", "[1/**/]", `"` + strings.Repeat(`\u0061`, 40) + `"`,
		strings.Repeat("[", 31) + strings.Repeat("]", 31), strings.Repeat("[", 32) + strings.Repeat("]", 32), strings.Repeat(`{"a":`, 31) + "1" + strings.Repeat("}", 31),
		"[" + strings.Repeat("1,", DefaultMembers-2) + "1]", "[" + strings.Repeat("1,", DefaultMembers-1) + "1]",
	} {
		list = append(list, `{"k":`+value+`}`, "{ \t\r\n\"k\" : "+value+" ,\n\"l\":1 }")
	}
	return append(list, "", "{", "}", "{}", "{ }", " {}", "{} ", "{}{}", "[]", "\ufeff{}", "{}\x00", `{"a"}`, `{"a":}`, `{:1}`, `{1:1}`)
}

// FuzzAgainstEncodingJSON compares verdicts and values with those of encoding/json.
func FuzzAgainstEncodingJSON(f *testing.F) {
	for _, s := range oddObjects() {
		f.Add([]byte(s))
	}
	for _, v := range readJSONVectors(f).Parse {
		f.Add(v.Input)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := Parse(in, Limits{})
		if want := accepts(in); (err == nil) != want {
			t.Fatalf("%q: %v, want accepted %v", in, err, want)
		}
		if read, streamed := NewDecoder(bytes.NewReader(in), Limits{}).First(); (streamed == nil) != (err == nil) && !(streamed == nil && len(read.Raw()) < len(in)) {
			t.Fatalf("%q: %v, from a stream %v", in, err, streamed)
		}
		if err != nil {
			return
		}
		var want any
		d := json.NewDecoder(bytes.NewReader(in))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if !sameValue(o.v, want) {
			t.Fatalf("%q: read as another value", in)
		}
	})
}
