package lockedmem

import (
	"bytes"
	"os"
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
		if b.Bytes() != nil {
			t.Errorf("%d bytes: usable after Close", n)
		}
	}
	var none *Buffer
	none.Close()
	if none.Bytes() != nil {
		t.Error("a nil buffer has bytes")
	}
}

// TestOverwritten looks at memory that is not given back to the system.
func TestOverwritten(t *testing.T) {
	page := bytes.Repeat([]byte{0xaa}, 64)
	b := &Buffer{page: page, n: 48}
	b.Close()
	if !bytes.Equal(page, make([]byte, 64)) {
		t.Errorf("left behind %x", page)
	}
}
