package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// Objects of any size are parsed the same way, whatever memory is left.
func TestMemoryParse(t *testing.T) {
	m := NewMemory()
	defer m.Free()
	var all []Object
	for i := range 100 {
		o, err := m.Parse([]byte(fmt.Sprintf(`{"i":%d,"list":[%s0]}`, i, strings.Repeat("1,", i))), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	for i, o := range all {
		list, _ := o.Value("list")
		if n, err := o.Int("i"); err != nil || n != int64(i) || list.Len() != i+1 {
			t.Errorf("object %d: %d, %d elements, %v", i, n, list.Len(), err)
		}
	}
	if _, err := m.Parse([]byte(`{"a":1,"a":2}`), Limits{}); !errors.Is(err, ErrSyntax) {
		t.Error(err)
	}
}

// Binary data is the same, however it is read.
func TestBytesInPlace(t *testing.T) {
	for _, value := range []string{"", "AA==", "AAE=", "AAEC", "AAEC\\/w==", " A\\nA E C ", "AAECAwQFBgcICQoLDA0ODw==", "AAECAwQFBgcICQoLDA0 ODw==",
		"A", "A===", "AAECAwQFBgcICQoLDA0O*w=="} {
		object := []byte(fmt.Sprintf(`{"before":"AA==","v":%q,"after":"//8="}`, value))
		object = bytes.ReplaceAll(object, []byte(`\\`), []byte(`\`))
		o, err := Parse(object, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		f := FieldsOf(o)
		want, wantErr := o.Bytes("v")
		got := f.AppendBytes([]byte("dst"), "v")
		if errors.Is(f.Err(), ErrType) != errors.Is(wantErr, ErrType) || wantErr == nil && string(got) != "dst"+string(want) {
			t.Errorf("%q: appended %x, %v, want %x, %v", value, got, f.Err(), want, wantErr)
		}
		f = FieldsOf(o)
		got = f.Decoded("v")
		if errors.Is(f.Err(), ErrType) != errors.Is(wantErr, ErrType) || !bytes.Equal(got, want) {
			t.Errorf("%q: decoded %x, %v, want %x, %v", value, got, f.Err(), want, wantErr)
		}
		before, err1 := o.Bytes("before")
		after, err2 := o.Bytes("after")
		if err := errors.Join(err1, err2); err != nil || string(before) != "\x00" || string(after) != "\xff\xff" {
			t.Errorf("%q: decoding changed its neighbors to %x and %x, %v", value, before, after, err)
		}
	}
	f := FieldsOf(Object{})
	if f.Decoded("v") != nil || !errors.Is(f.Err(), ErrMissing) {
		t.Error(f.Err())
	}
}

// Memory has nothing of one message left when another gets it.
func TestMemoryForgets(t *testing.T) {
	secret := []byte("a secret of one sender")
	m := NewMemory()
	d := NewDecoder(io.MultiReader(strings.NewReader(`{"data":"`+string(secret)+`"}`), strings.NewReader("{}")), Limits{})
	d.mem = m
	for range 2 { // the second one takes the place of the first
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
	}
	m.Content = append(m.Content, secret...)
	m.Scratch = append(m.Scratch, secret...)[:1]
	m.Tag = append(m.Tag, secret...)[:0]
	used := [][]byte{m.Content, m.Scratch, m.Tag, m.buf}
	d.Free()
	e := Scratch(100)
	e.Begin()
	e.Secret("data", secret)
	e.End()
	used = append(used, e.Encoded())
	e.Free()
	for i, b := range used {
		if bytes.Contains(b[:cap(b)], secret[3:]) {
			t.Errorf("memory %d still has %q", i, b[:cap(b)])
		}
	}
}

// The object that was returned last stays valid while the next one is peeked at, wherever
// that has to be put.
func TestPeekLeavesTheLastObject(t *testing.T) {
	for _, size := range []int{10, 3000, 4000, 5000, 8000, 12000} {
		header := fmt.Sprintf(`{"header":"%s"}`, strings.Repeat("h", size))
		chunk := fmt.Sprintf(`{"chunk":"%s"}`, strings.Repeat("c", 6000))
		d := NewDecoder(bytes.NewReader([]byte(header+chunk)), Limits{})
		first, err := d.First()
		if err != nil {
			t.Fatal(err)
		}
		d.Await(16 << 10)
		next, arrived := d.Peek(16 << 10)
		if !arrived || string(next.Raw()) != chunk || string(first.Raw()) != header {
			t.Errorf("header of %d bytes: now %.20q, next %.20q, arrived: %v", size, first.Raw(), next.Raw(), arrived)
		}
		if o, err := d.Next(); err != nil || string(o.Raw()) != chunk {
			t.Errorf("header of %d bytes: then %v", size, err)
		}
		d.Free()
	}
}
