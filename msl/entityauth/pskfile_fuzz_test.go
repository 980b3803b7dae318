package entityauth

import (
	"bytes"
	"testing"
)

// FuzzPSKFile reads what it wrote, and no file that says something else.
func FuzzPSKFile(f *testing.F) {
	f.Add([]byte(`{"identity":"a","encryption":"AAAAAAAAAAAAAAAAAAAAAA==","mac":"AA==","wrapping":""}`))
	f.Add([]byte(`{"Identity":"a","extra":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		k := &PSKFile{}
		if k.decode(text) != nil {
			return
		}
		again, err := k.encode()
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		back := &PSKFile{}
		if err := back.decode(again.Bytes()); err != nil {
			t.Fatal(err)
		}
		if back.Identity != k.Identity || !bytes.Equal(back.Encryption, k.Encryption) || !bytes.Equal(back.MAC, k.MAC) || !bytes.Equal(back.Wrapping, k.Wrapping) {
			t.Errorf("%q is not %q", again.Bytes(), text)
		}
	})
}
