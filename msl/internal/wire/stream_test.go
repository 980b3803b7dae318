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

// readAll reads one message up to its end or an error.
func readAll(d *Decoder) (objects []string, err error) {
	o, err := d.First()
	for ; err == nil; o, err = d.Next() {
		objects = append(objects, string(o.Raw()))
	}
	return objects, err
}

// chunks returns readers of one stream that differ in how it arrives.
func chunks(in []byte) map[string]io.Reader {
	return map[string]io.Reader{
		"at once":       bytes.NewReader(in),
		"by byte":       iotest.OneByteReader(bytes.NewReader(in)),
		"by half":       iotest.HalfReader(bytes.NewReader(in)),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(in)),
	}
}

// otherwise lists where the stack of the vectors behaves differently: it refuses
// whitespace at the end of a stream, takes a zero byte for the end, and replaces
// invalid UTF-8.
var otherwise = map[string]struct {
	objects int
	err     error
}{
	"{}\n\r\t {}\n":         {2, io.EOF},
	"{}\x00{}":              {1, ErrSyntax},
	"{}\x001":               {1, ErrSyntax},
	"{\"a\":\"\xff\xc3(\"}": {0, ErrSyntax},
}

func TestDecoderVectors(t *testing.T) {
	for _, v := range readJSONVectors(t).Tokens {
		want, end := len(v.Objects), v.End
		w, differs := otherwise[string(v.Input)]
		if differs {
			want = w.objects
		}
		for how, r := range chunks(v.Input) {
			got, err := readAll(NewDecoder(r, Limits{}))
			if len(got) != want {
				t.Errorf("%q %s: got %q, want %d objects", v.Input, how, got, want)
			}
			if differs {
				if !errors.Is(err, w.err) {
					t.Errorf("%q %s: got %v, want %v", v.Input, how, err, w.err)
				}
			} else if (err == io.EOF) != (end == "end" || len(v.Input) == 0) {
				t.Errorf("%q %s: got %v, want %s", v.Input, how, err, end)
			}
		}
	}
}

func TestDecoderErrors(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", 2*minBuffer) + `"}`
	for _, c := range []struct {
		in      string
		objects int
		err     error
	}{
		{"", 0, io.EOF},
		{" {}", 0, ErrSyntax},
		{"\xff{}", 0, ErrSyntax},
		{"[]", 0, ErrSyntax},
		{"{}", 1, io.EOF},
		{"{} \r\n\t", 1, io.EOF},
		{"{},{}", 1, ErrSyntax},
		{"{}{}}", 2, ErrSyntax},
		{"{", 0, ErrTruncated},
		{`{"a":"}`, 0, ErrTruncated},
		{`{"a":"\`, 0, ErrTruncated},
		{`{"a":"\"}`, 0, ErrTruncated},
		{`{}{"a":1`, 1, ErrTruncated},
		{`{"a":"{{{\\"}{"b":"\"}"}`, 2, io.EOF},
		{"{\"a\":\"\n", 0, ErrSyntax},
		{`{"a":null}{}`, 0, ErrSyntax},
		{long + long + " {} " + long, 4, io.EOF},
		{long[:len(long)-1], 0, ErrTruncated},
	} {
		for how, r := range chunks([]byte(c.in)) {
			d := NewDecoder(r, Limits{})
			got, err := readAll(d)
			if len(got) != c.objects || !errors.Is(err, c.err) {
				t.Errorf("%.40q %s: got %.100q, %v, want %d, %v", c.in, how, got, err, c.objects, c.err)
			}
			if _, again := d.Next(); again != err {
				t.Errorf("%.40q %s: got %v, then %v", c.in, how, err, again)
			}
		}
	}
}

func TestDecoderLimits(t *testing.T) {
	for _, c := range []struct {
		in string
		ok bool
	}{
		{`{}{"a":10}`, true},
		{`{}{"a":100}`, false},
		{`{}{"a":"` + strings.Repeat("x", 100000), false},
		{"{}" + strings.Repeat(" ", 8) + "{}", true},
		{"{}" + strings.Repeat(" ", 9) + "{}", false},
	} {
		for how, r := range chunks([]byte(c.in)) {
			_, err := readAll(NewDecoder(r, Limits{Object: 8}))
			if c.ok != (err == io.EOF) || !c.ok && !errors.Is(err, ErrLimit) {
				t.Errorf("%.40q %s: got %v, want accepted %v", c.in, how, err, c.ok)
			}
		}
	}
}

// endless is a peer that sends the same byte for ever.
type endless struct {
	b    byte
	sent int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.b
	}
	e.sent += len(p)
	return len(p), nil
}

func TestDecoderEndlessStreams(t *testing.T) {
	for in, b := range map[string]byte{`{"a":"`: 'x', "{": '{', "{}": ' ', `{"`: '\\', `{"a":[`: ' '} {
		peer := &endless{b: b}
		d := NewDecoder(io.MultiReader(strings.NewReader(in), peer), Limits{Object: 1 << 20})
		_, err := readAll(d)
		if !errors.Is(err, ErrLimit) {
			t.Errorf("%q: got %v", in, err)
		}
		if peer.sent > 2<<20 || cap(d.mem.buf) > 4<<20 {
			t.Errorf("%q: read %d bytes into %d", in, peer.sent, cap(d.mem.buf))
		}
	}
}

// talker fails the test if it is read from again after its last part.
type talker struct {
	t     *testing.T
	parts []string
}

func (r *talker) Read(p []byte) (int, error) {
	if len(r.parts) == 0 {
		r.t.Error("read from a peer that is waiting for an answer")
		return 0, io.EOF
	}
	n := copy(p, r.parts[0])
	if r.parts[0] = r.parts[0][n:]; r.parts[0] == "" {
		r.parts = r.parts[1:]
	}
	return n, nil
}

func TestDecoderDoesNotReadAhead(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", 3*minBuffer) + `"}`
	r := &talker{t, []string{"{", "}", `{"a":1}{"b`, `":2} `, " ", long, long, "{}{}"}}
	d := NewDecoder(r, Limits{})
	for i := range 7 {
		if _, err := d.Next(); err != nil {
			t.Fatal(i, err)
		}
	}
	if d.Buffered() != 0 {
		t.Errorf("%d bytes left", d.Buffered())
	}
}

// An object is as it was sent until the next one is read, wherever that is put.
func TestDecoderObjects(t *testing.T) {
	var in strings.Builder
	var want []string
	for i := range 500 {
		s := fmt.Sprintf(`{"a":"%d%s"}`, i, strings.Repeat("x", i*i%3001))
		want = append(want, s)
		in.WriteString(s + strings.Repeat(" ", i%7))
	}
	for how, r := range chunks([]byte(in.String())) {
		d := NewDecoder(r, Limits{})
		for i := range want {
			o, err := d.Next()
			if err != nil {
				t.Fatal(how, i, err)
			}
			if string(o.Raw()) != want[i] {
				t.Fatalf("%s: object %d is %.50q", how, i, o.Raw())
			}
			if cap(o.Raw()) != len(o.Raw()) {
				t.Fatalf("%s: appending to object %d overwrites the next", how, i)
			}
		}
		if _, err := d.Next(); err != io.EOF {
			t.Fatal(how, err)
		}
	}
}

// The objects of a stream are read into the same memory.
func TestDecoderReuse(t *testing.T) {
	for _, size := range []int{100, 3000, minBuffer - 1, 3 * minBuffer} {
		object := objectOf("payload", size)
		r := &repeated{in: object}
		d := NewDecoder(r, Limits{})
		read := func() {
			if o, err := d.Next(); err != nil || len(o.Raw()) != size {
				t.Fatalf("%d bytes: %v", len(o.Raw()), err)
			}
		}
		for range 10 {
			read()
		}
		if n := testing.AllocsPerRun(100, read); n > 0 {
			t.Errorf("an object of %d bytes takes %v allocations", size, n)
		}
	}
}

// repeated sends the same again and again, a thousand bytes at a time.
type repeated struct {
	in string
	at int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p[:min(len(p), 1000)], r.in[r.at:])
	r.at = (r.at + n) % len(r.in)
	return n, nil
}

// After Free, nothing is read.
func TestDecoderFree(t *testing.T) {
	d := NewDecoder(strings.NewReader(`{"a":1}{"b":2}`), Limits{})
	if _, err := d.First(); err != nil {
		t.Fatal(err)
	}
	d.Free()
	if _, err := d.Next(); err == nil || d.Buffered() != 0 {
		t.Errorf("an object after the end: %v", err)
	}
	d.Free()
}

func TestDecoderReadErrors(t *testing.T) {
	broken := errors.New("connection reset")
	r := io.MultiReader(strings.NewReader(`{}{"a":`), iotest.ErrReader(broken))
	d := NewDecoder(r, Limits{})
	if got, err := readAll(d); len(got) != 1 || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := NewDecoder(silent{}, Limits{}).First(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v", err)
	}
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

// Several messages may follow one another on a stream.
func TestDecoderMessages(t *testing.T) {
	d := NewDecoder(strings.NewReader("{}{} {}"), Limits{})
	for i, read := range []func() (Object, error){d.First, d.Next, d.First} {
		if _, err := read(); (err != nil) != (i == 2) {
			t.Errorf("%d: got %v", i, err)
		}
	}
}
