package wire

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"testing"
)

func FuzzParse(f *testing.F) {
	for _, v := range readJSONVectors(f).Parse {
		f.Add(v.Input)
	}
	for _, v := range readJSONVectors(f).Encode {
		f.Add(v.Encoding.B64)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := Parse(in, Limits{})
		if err != nil {
			if !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrLimit) {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		if !json.Valid(in) {
			t.Fatalf("accepted %q", in)
		}
		if !bytes.Equal(o.Raw(), in) {
			t.Fatalf("raw %q", o.Raw())
		}
		once := encodeAgain(t, o)
		again, err := Parse(once, Limits{Object: 1 << 30})
		if err != nil {
			t.Fatalf("%q: %v", once, err)
		}
		if twice := encodeAgain(t, again); !bytes.Equal(once, twice) {
			t.Fatalf("%q, then %q", once, twice)
		}
	})
}

// encodeAgain walks an object and writes it anew.
func encodeAgain(t *testing.T, o Object) []byte {
	var e Encoder
	e.Begin()
	encodeMembers(t, &e, o)
	e.End()
	return e.Encoded()
}

func encodeMembers(t *testing.T, e *Encoder, o Object) {
	names := o.Names()
	if len(names) != o.Len() {
		t.Fatalf("%d names for %d members", len(names), o.Len())
	}
	for _, name := range names {
		v, ok := o.Value(name)
		if !ok {
			t.Fatalf("no member %q", name)
		}
		o.Bytes(name)
		encodeValue(t, e, name, v)
	}
}

func encodeValue(t *testing.T, e *Encoder, name string, v Value) {
	switch v.Kind() {
	case StringKind:
		s, err := v.Text()
		if err != nil {
			t.Fatal(err)
		}
		e.String(name, s)
	case NumberKind:
		if i, err := v.Int(); err == nil && strconv.FormatInt(i, 10) != string(v.Raw()) {
			t.Fatalf("%s read as %d", v.Raw(), i)
		}
		e.Raw(name, v.Raw())
	case BoolKind:
		b, _ := v.Bool()
		e.Bool(name, b)
	case ObjectKind:
		sub, _ := v.Object()
		e.BeginMember(name)
		encodeMembers(t, e, sub)
		e.End()
	case ArrayKind:
		encodeArray(t, e, name, v)
	default:
		t.Fatalf("kind %v", v.Kind())
	}
}

func encodeArray(t *testing.T, e *Encoder, name string, v Value) {
	if ss, err := v.Strings(); err == nil {
		e.Strings(name, ss)
		return
	}
	e.BeginArray(name)
	es, err := v.Elements()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range es {
		if sub, err := v.Object(); err == nil {
			e.Begin()
			encodeMembers(t, e, sub)
			e.End()
		} else {
			e.RawElement(v.Raw())
		}
	}
	e.EndArray()
}

// chunked cuts a stream into reads of the sizes given, over and over.
type chunked struct {
	in    []byte
	sizes []byte
	i     int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	size := 1
	if len(c.sizes) > 0 {
		size += int(c.sizes[c.i%len(c.sizes)])
		c.i++
	}
	n := copy(p[:min(size, len(p))], c.in)
	c.in = c.in[n:]
	return n, nil
}

func FuzzDecoder(f *testing.F) {
	for _, v := range readJSONVectors(f).Tokens {
		f.Add(v.Input, []byte{0, 2, 7}, uint16(0))
	}
	f.Add([]byte(`{"a":"\\\""}  {"b":"}"}{`), []byte{5}, uint16(12))
	f.Fuzz(func(t *testing.T, in, sizes []byte, limit uint16) {
		lim := Limits{Object: int(limit)}
		want, wantErr := readAll(NewDecoder(bytes.NewReader(in), lim))
		got, err := readAll(NewDecoder(&chunked{in: in, sizes: sizes}, lim))
		if len(got) != len(want) || kindOf(err) != kindOf(wantErr) {
			t.Fatalf("got %q, %v, want %q, %v", got, err, want, wantErr)
		}
		rest := in
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("got %q, want %q", got[i], want[i])
			}
			rest = bytes.TrimPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte(got[i]))
		}
		if err == io.EOF && len(bytes.TrimLeft(rest, " \t\r\n")) != 0 {
			t.Fatalf("skipped %q", rest)
		}
	})
}

// FuzzFirstAfter finds the same headers however they arrive, and holds no more than a
// header may have.
func FuzzFirstAfter(f *testing.F) {
	f.Add([]byte(`{"h":1}{"payload":"0123456789"} {"payload":1}{"h":2}`), []byte{5}, uint16(20))
	f.Add([]byte(`{}{"payload":"\"{"}{"h":"`), []byte{0}, uint16(10))
	f.Add([]byte(`{}{"x":"0123456789","payload":1}{}`), []byte{5}, uint16(20))
	f.Fuzz(func(t *testing.T, in, sizes []byte, limit uint16) {
		lim := Limits{Header: 1 + int(limit), Object: 1 << 16}
		headers := func(r io.Reader) (all []string, err error) {
			d := NewDecoder(held{r, func(size int) error {
				if size > max(lim.Header, minBuffer) {
					t.Fatalf("%d bytes are held", size)
				}
				return nil
			}}, lim)
			for {
				o, err := d.FirstAfter("payload")
				if err != nil {
					return all, err
				}
				all = append(all, string(o.Raw()))
			}
		}
		want, wantErr := headers(bytes.NewReader(in))
		got, err := headers(&chunked{in: in, sizes: sizes})
		if !slices.Equal(got, want) || kindOf(err) != kindOf(wantErr) {
			t.Fatalf("got %q, %v, want %q, %v", got, err, want, wantErr)
		}
	})
}

// kindOf returns the error wrapped in one with an offset. Whether an object that is too
// long is reported as too long, as truncated, or as malformed depends on how much of it
// came with one read.
func kindOf(err error) error {
	if errors.Is(err, ErrLimit) || errors.Is(err, ErrSyntax) || errors.Is(err, ErrTruncated) {
		return ErrSyntax
	}
	return err
}

func FuzzDecompress(f *testing.F) {
	for _, v := range readCompressionVectors(f) {
		f.Add(v.LZW, uint16(200))
		if v.GZIP != nil {
			f.Add(mustBase64(f, *v.GZIP), uint16(200))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, ratio uint16) {
		for _, algo := range []string{GZIP, LZW} {
			out, err := Decompress(algo, in, Inflation{Ratio: int(ratio)})
			if err != nil {
				if !errors.Is(err, ErrCompression) && !errors.Is(err, ErrLimit) {
					t.Fatalf("unexpected error %v", err)
				}
				continue
			}
			if len(out) > max(int(ratio), 1)*len(in) {
				t.Fatalf("%s: %d bytes from %d", algo, len(out), len(in))
			}
		}
	})
}

// FuzzGZIP compares with the standard library, which ignores reserved flags: RFC 1952,
// section 2.3.1.2, wants an error.
func FuzzGZIP(f *testing.F) {
	for _, v := range readCompressionVectors(f) {
		c, err := Compress(GZIP, v.Data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c, v.Data)
		f.Add(append(c, c...), v.Data)
	}
	f.Fuzz(func(t *testing.T, in, data []byte) {
		got, err := Decompress(GZIP, in, Inflation{Ratio: 1 << 20})
		want, wantErr := standardGunzip(in)
		if (err == nil) != (wantErr == nil) && !hasReservedFlags(in) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%x: got %x, %v, and from the standard library %x, %v", in, got, err, want, wantErr)
		}
		c, err := Compress(GZIP, data)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := standardGunzip(c); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x: got %x, %v", data, again, err)
		}
	})
}

// hasReservedFlags reports whether a member may have them.
func hasReservedFlags(in []byte) bool {
	for _, member := range bytes.Split(in, []byte{0x1f, 0x8b, 8}) {
		if len(member) > 0 && member[0]>>5 != 0 {
			return true
		}
	}
	return false
}

func standardGunzip(in []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(in))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func FuzzLZWRoundTrip(f *testing.F) {
	for _, v := range readCompressionVectors(f) {
		f.Add(v.Data)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c := compressLZW(in)
		if len(in) < 1<<12 && !bytes.Equal(c, lzwByBook(in)) {
			t.Fatalf("%x: got %x", in, c)
		}
		out, err := Decompress(LZW, c, Inflation{Ratio: 1 << 20})
		if err != nil || !bytes.Equal(in, out) {
			t.Fatalf("%x: got %x, %v", in, out, err)
		}
	})
}

func FuzzBase64(f *testing.F) {
	for _, v := range readBase64Vectors(f).Decode {
		f.Add(v.Input)
	}
	for _, v := range readBase64Vectors(f).URL {
		f.Add(v.Input)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := DecodeBase64(in)
		want, ok := base64ByRule(in)
		if ok != (err == nil) || ok && !bytes.Equal(got, want) {
			t.Fatalf("%q: got %x, %v, want %x, %v", in, got, err, want, ok)
		}
		if again, err := DecodeBase64(encodeBase64(got)); ok && (err != nil || !bytes.Equal(again, got)) {
			t.Fatalf("%q: got %x, then %x", in, got, again)
		}
	})
}

// base64ByRule decodes as the rules read, without the standard library.
func base64ByRule(in string) (out []byte, ok bool) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	var acc, n, pads int
	for i := range len(in) {
		c := in[i]
		d := bytes.IndexByte([]byte(alphabet), c)
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		case c == '=':
			pads++
		case d < 0 || pads > 0:
			return nil, false
		default:
			acc, n = acc<<6|d, n+1
			if n%4 == 0 {
				out = append(out, byte(acc>>16), byte(acc>>8), byte(acc))
			}
		}
	}
	switch {
	case n%4 == 2 && pads == 2:
		out = append(out, byte(acc>>4))
	case n%4 == 3 && pads == 1:
		out = append(out, byte(acc>>10), byte(acc>>2))
	case n%4 != 0 || pads != 0:
		return nil, false
	}
	return out, true
}
