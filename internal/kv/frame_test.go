package kv

import (
	"bytes"
	"testing"
)

// FuzzFrame checks that Unframe undoes Frame, and accepts nothing else.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("key"), []byte("value"))
	f.Add([]byte{}, []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, key, b []byte) {
		framed := Frame("x", key, b)
		if value, ok := Unframe("x", key, framed); !ok || !bytes.Equal(value, b) {
			t.Error("Frame is not undone")
		}
		if _, ok := Unframe("y", key, framed); ok {
			t.Error("it is accepted in another table")
		}
		if value, ok := Unframe("x", key, b); ok && !bytes.Equal(Frame("x", key, value), b) {
			t.Error("a frame has two forms")
		}
	})
}
