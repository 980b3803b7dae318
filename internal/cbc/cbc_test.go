package cbc_test

import (
	"bytes"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/cbc"
)

func TestPad(t *testing.T) {
	for n := range 50 {
		data := bytes.Repeat([]byte{7}, n)
		out := make([]byte, cbc.Padded(n))
		cbc.Pad(out, data)
		if len(out) <= n || !cbc.Whole(len(out)) || int(out[len(out)-1]) != len(out)-n {
			t.Errorf("%d bytes become %x", n, out)
		}
		if plain, ok := cbc.Unpad(out); !ok || !bytes.Equal(plain, data) {
			t.Errorf("%d bytes come back as %x", n, plain)
		}
	}
}

func TestUnpad(t *testing.T) {
	block := func(tail ...byte) []byte {
		return append(bytes.Repeat([]byte{9}, 16-len(tail)), tail...)
	}
	for _, c := range []struct {
		name string
		data []byte
		want int // bytes that are left, or -1
	}{
		{"one", block(1), 15},
		{"two", block(2, 2), 14},
		{"a whole block", bytes.Repeat([]byte{16}, 16), 0},
		{"two blocks", append(block(), block(3, 3, 3)...), 29},
		{"none", block(0), -1},
		{"more than a block", bytes.Repeat([]byte{17}, 32), -1},
		{"one byte is wrong", block(3, 2, 3), -1},
		{"the first is wrong", append(block(), append([]byte{15}, bytes.Repeat([]byte{16}, 15)...)...), -1},
	} {
		plain, ok := cbc.Unpad(c.data)
		if ok != (c.want >= 0) || ok && len(plain) != c.want {
			t.Errorf("%s: %x, %v", c.name, plain, ok)
		}
		if !ok && !bytes.Equal(c.data, make([]byte, len(c.data))) {
			t.Errorf("%s: the data is still there", c.name)
		}
	}
}

func FuzzUnpad(f *testing.F) {
	f.Add(bytes.Repeat([]byte{16}, 16))
	f.Fuzz(func(t *testing.T, data []byte) {
		if !cbc.Whole(len(data)) {
			return
		}
		before := bytes.Clone(data)
		plain, ok := cbc.Unpad(data)
		if !ok {
			return
		}
		again := make([]byte, cbc.Padded(len(plain)))
		if cbc.Pad(again, plain); !bytes.Equal(again, before) {
			t.Errorf("%x unpads to %x", before, plain)
		}
	})
}
