package lockedmem

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
)

func TestBuffer(t *testing.T) {
	for _, n := range []int{0, 1, 48, os.Getpagesize(), os.Getpagesize() + 1} {
		b := New(n)
		if got := b.Bytes(); len(got) != n || cap(got) != n || !bytes.Equal(got, make([]byte, n)) {
			t.Fatalf("%d bytes: length %d, capacity %d", n, len(got), cap(got))
		}
		copy(b.Bytes(), "secret")
		if n > 6 && string(b.Bytes()[:6]) != "secret" {
			t.Errorf("%d bytes: lost its bytes", n)
		}
		b.Close()
		b.Close()
		if b.Bytes() != nil || b.Len() != n {
			t.Errorf("%d bytes: usable after Close, length %d", n, b.Len())
		}
	}
	var none *Buffer
	none.Close()
	if none.Bytes() != nil || none.Len() != 0 {
		t.Error("a nil buffer has bytes")
	}
}

// TestOverwritten looks at memory that is not given back to the system.
func TestOverwritten(t *testing.T) {
	page := bytes.Repeat([]byte{0xaa}, 64)
	b := &Buffer{start: &page[0], room: len(page), n: 48}
	b.Close()
	if !bytes.Equal(page, make([]byte, 64)) {
		t.Errorf("left behind %x", page)
	}
}

func TestCopyAndMove(t *testing.T) {
	secret := []byte("1234")
	c := Copy(secret)
	defer c.Close()
	m := Move(secret)
	defer m.Close()
	if string(c.Bytes()) != "1234" || string(m.Bytes()) != "1234" || !bytes.Equal(secret, make([]byte, 4)) {
		t.Errorf("copied %q, moved %q, left %q", c.Bytes(), m.Bytes(), secret)
	}
}

// TestPrinted checks that nothing that prints values prints these.
func TestPrinted(t *testing.T) {
	b := Copy([]byte("1234"))
	defer b.Close()
	holder := struct{ B *Buffer }{b}
	pointer, value := struct{ b *Buffer }{b}, struct{ b Buffer }{*b} // of which fmt calls no method
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%U"} {
		fmt.Fprintf(&out, verb+verb+verb, b, *b, holder)
		fmt.Fprintf(&out, verb+verb+verb+verb, pointer, &pointer, value, []any{&value})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "b", b, "holder", holder)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "b", b, "holder", holder)
	text, err := json.Marshal(holder)
	if err != nil {
		t.Error(err)
	}
	out.Write(text)
	for _, form := range []string{"1234", "49 50", "0x31", "313233", "MTIzNA"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("printed as %q in %s", form, out.String())
		}
	}
}
