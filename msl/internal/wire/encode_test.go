package wire

import (
	"bytes"
	"encoding/base64"
	"testing"
)

// TestEncodeVectors parses the output of another stack, and writes the same bytes
// again. Doubles and arrays of mixed types are not written in MSL.
func TestEncodeVectors(t *testing.T) {
	for _, v := range readJSONVectors(t).Encode {
		o, err := Parse(v.Encoding.B64, Limits{})
		if err != nil {
			t.Errorf("%q: %v", v.Encoding.B64, err)
			continue
		}
		e := NewEncoder(0)
		e.Begin()
		if !copyMember(e, o, v.Type) {
			continue
		}
		e.End()
		if !bytes.Equal(e.Encoded(), v.Encoding.B64) {
			t.Errorf("got %q, want %q", e.Encoded(), v.Encoding.B64)
		}
	}
}

func copyMember(e *Encoder, o Object, typ string) bool {
	value, _ := o.Value("k")
	switch typ {
	case "string":
		s, _ := value.Text()
		e.String("k", s)
	case "integer":
		i, _ := value.Int()
		e.Int("k", i)
	case "boolean":
		b, _ := value.Bool()
		e.Bool("k", b)
	case "binary":
		b, _ := value.Bytes()
		e.Bytes("k", b)
	case "object":
		e.Raw("k", value.Raw())
	default:
		return false
	}
	return true
}

func TestEncoder(t *testing.T) {
	var e Encoder
	e.Begin()
	e.String("s", "</a>/\u2028\u00a0\x7f")
	e.Int("i", -5)
	e.Bool("b", true)
	e.Bytes("bin", []byte{0, 1, 2, 255})
	e.Bytes("nil", nil)
	e.BeginMember("o")
	e.End()
	e.BeginArray("a")
	e.Begin()
	e.Int("x", 1)
	e.BeginMember("y")
	e.Bool("z", false)
	e.End()
	e.End()
	e.Begin()
	e.End()
	e.RawElement([]byte(`{"r":1}`))
	e.EndArray()
	e.Raw("raw", []byte(`{"r":2}`))
	e.Strings("ss", []string{"{", "["})
	e.Strings("none", nil)
	e.String("</", "\xff\ufffd")
	e.End()
	want := `{"s":"<\/a>/\u2028` + "\u00a0\x7f" + `","i":-5,"b":true,"bin":"AAEC/w==","nil":"","o":{},` +
		`"a":[{"x":1,"y":{"z":false}},{},{"r":1}],"raw":{"r":2},"ss":["{","["],"none":[],"<\/":"` + "\ufffd\ufffd" + `"}`
	if string(e.Encoded()) != want {
		t.Errorf("got  %s\nwant %s", e.Encoded(), want)
	}
	if _, err := Parse(e.Encoded(), Limits{}); err != nil {
		t.Error(err)
	}
}

func TestEncoderAllocates(t *testing.T) {
	payload := make([]byte, 1000)
	allocs := testing.AllocsPerRun(100, func() {
		e := NewEncoder(base64.StdEncoding.EncodedLen(len(payload)) + 100)
		e.Begin()
		e.Int("messageid", 1)
		e.Bytes("data", payload)
		e.End()
		if len(e.Encoded()) == 0 {
			t.Fatal("empty")
		}
	})
	if allocs > 2 {
		t.Errorf("%v allocations", allocs)
	}
}
