package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// A slow source knows its length.
type slow struct{ *bytes.Reader }

func (s slow) Read(b []byte) (int, error) { return s.Reader.Read(b[:min(len(b), 1)]) }

func TestPeek(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", 12<<10) + `"}`
	slowly := func(s string) io.Reader { return iotest.OneByteReader(strings.NewReader(s)) }
	promised := func(s string) io.Reader { return slow{bytes.NewReader([]byte(s))} }
	whole := func(s string) io.Reader { return iotest.DataErrReader(strings.NewReader(s)) }
	for name, c := range map[string]struct {
		in     func(string) io.Reader
		second string
		want   bool
	}{
		"there":                    {whole, `{"b":1}`, true},
		"there after blanks":       {whole, " \r\n{\"b\":1}{\"c\":2}", true},
		"not there yet":            {slowly, `{"b":1}`, false},
		"promised":                 {promised, ` {"b":1}{"c":2}`, true},
		"promised, of some length": {promised, long, true},
		"too long":                 {promised, `{"a":"` + strings.Repeat("x", 17<<10) + `"}`, false},
		"nothing":                  {promised, "", false},
		"no object":                {promised, "[]", false},
		"cut off":                  {promised, `{"b":`, false},
		"malformed":                {promised, `{"b"}`, false},
		"control character":        {promised, "{\"b\":\"\n\"}", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(c.in(`{"a":1}`+c.second), Limits{})
			if _, err := d.First(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				d.Await(16 << 10)
				o, arrived := d.Peek(16 << 10)
				if arrived != c.want || arrived && !strings.HasPrefix(strings.TrimSpace(c.second), string(o.Raw())) {
					t.Errorf("%v, %s", arrived, o.Raw())
				}
			}
			samePieces(t, d, NewDecoder(strings.NewReader(c.second), Limits{}))
		})
	}
	d := NewDecoder(whole(`{"a":1}{"b":"x"}`), Limits{})
	d.First()
	peeked, _ := d.Peek(100)
	o, _ := d.Next()
	clear(o.Raw())
	if string(peeked.Raw()) != `{"b":"x"}` {
		t.Errorf("what was peeked at is not a copy: %s", peeked.Raw())
	}
}

// samePieces requires that two decoders have the same objects, and then the same error.
func samePieces(t *testing.T, one, two *Decoder) {
	t.Helper()
	for {
		a, err := one.Next()
		b, err2 := two.Next()
		if kind(err) != kind(err2) || !bytes.Equal(a.Raw(), b.Raw()) {
			t.Fatalf("%s, %v; want %s, %v", a.Raw(), err, b.Raw(), err2)
		}
		if err != nil {
			return
		}
	}
}

func kind(err error) string {
	for _, k := range []error{ErrSyntax, ErrLimit, ErrTruncated, io.EOF} {
		if errors.Is(err, k) {
			return k.Error()
		}
	}
	return fmt.Sprint(err)
}

func TestAhead(t *testing.T) {
	const next = `{"b":"x"}`
	yes, all := func() bool { return true }, func(Object) bool { return true }
	for name, c := range map[string]struct {
		in   io.Reader
		goOn func() bool
		want func(Object) bool
		ok   bool
	}{
		"there":          {iotest.DataErrReader(strings.NewReader(`{"a":1}` + next)), func() bool { return false }, all, true},
		"blanks":         {strings.NewReader(`{"a":1} ` + "\n" + next), yes, all, true},
		"promised":       {slow{bytes.NewReader([]byte(`{"a":1}` + next))}, yes, all, true},
		"begun":          {iotest.HalfReader(struct{ io.Reader }{strings.NewReader(`{"a":1}` + next)}), yes, all, true},
		"not now":        {slow{bytes.NewReader([]byte(`{"a":1}` + next))}, func() bool { return false }, all, false},
		"nothing begun":  {iotest.OneByteReader(strings.NewReader(`{"a":1}` + next)), yes, all, false},
		"another object": {strings.NewReader(`{"a":1}` + next), yes, func(o Object) bool { return o.Has("c") }, false},
	} {
		d := NewDecoder(c.in, Limits{})
		d.First()
		o, ok := d.Ahead(c.goOn, c.want)
		if ok != c.ok || ok && string(o.Raw()) != next {
			t.Errorf("%s: %v, %s", name, ok, o.Raw())
		}
		if !ok {
			o, _ = d.Next()
		}
		raw := string(o.Raw())
		if _, err := d.Next(); raw != next || err != io.EOF {
			t.Errorf("%s: %s, then %v", name, raw, err)
		}
	}
}

// FuzzAhead asks for each object ahead: what is read stays the same.
func FuzzAhead(f *testing.F) {
	for _, s := range []string{`{"a":1}{"b":"\""} {}`, "{}{", `{"a":"{"}[`, "{}\x00", "{\"a\":\"\n\"}{}"} {
		f.Add([]byte(s), true, 1, 1)
	}
	f.Fuzz(func(t *testing.T, in []byte, slowly bool, patience, wanted int) {
		r := io.Reader(bytes.NewReader(in))
		if slowly {
			r = slow{bytes.NewReader(in)}
		}
		ahead, plain := NewDecoder(r, Limits{}), NewDecoder(bytes.NewReader(in), Limits{})
		for n := 0; ; n++ {
			tries := patience
			goOn := func() bool { tries--; return tries >= 0 }
			a, ok := ahead.Ahead(goOn, func(Object) bool { return n%(max(wanted, 0)+1) == 0 })
			var err error
			if !ok {
				a, err = ahead.Next()
			}
			b, err2 := plain.Next()
			if kind(err) != kind(err2) || !bytes.Equal(a.Raw(), b.Raw()) {
				t.Fatalf("%s, %v; want %s, %v", a.Raw(), err, b.Raw(), err2)
			}
			if err != nil {
				return
			}
		}
	})
}

// FuzzPeek peeks before each object: what is read stays the same.
func FuzzPeek(f *testing.F) {
	for _, s := range []string{`{"a":1}{"b":"\""} {}`, "{}{", `{"a":"{"}[`, "{}\x00", "{\"a\":\"\n\"}{}"} {
		f.Add([]byte(s), true, true)
	}
	f.Fuzz(func(t *testing.T, in []byte, slowly, await bool) {
		r := io.Reader(bytes.NewReader(in))
		if slowly {
			r = slow{bytes.NewReader(in)}
		}
		peeking, plain := NewDecoder(r, Limits{}), NewDecoder(bytes.NewReader(in), Limits{})
		for {
			if await {
				peeking.Await(64)
			}
			peeked, arrived := peeking.Peek(64)
			a, err := peeking.Next()
			b, err2 := plain.Next()
			if kind(err) != kind(err2) || !bytes.Equal(a.Raw(), b.Raw()) || arrived && !bytes.Equal(peeked.Raw(), a.Raw()) {
				t.Fatalf("%s, %v; want %s, %v; peeked at %s", a.Raw(), err, b.Raw(), err2, peeked.Raw())
			}
			if err != nil {
				return
			}
		}
	})
}
