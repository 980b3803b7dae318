package wire

import (
	"bytes"
	"errors"
	"testing"
)

// TestSecret checks that a secret is read and written like a string of the same bytes,
// and that overwriting the result does not change the object.
func TestSecret(t *testing.T) {
	for _, text := range []string{"", "plain", `quoted " and \`, "</é\u2028\x00\x1f", "\xff broken", "𝄞"} {
		a, b := NewEncoder(16), NewEncoder(16)
		for _, e := range []*Encoder{a, b} {
			e.Begin()
		}
		a.String("s", text)
		b.Secret("s", []byte(text))
		for _, e := range []*Encoder{a, b} {
			e.End()
		}
		if !bytes.Equal(a.Encoded(), b.Encoded()) {
			t.Errorf("%q: written as %s and %s", text, a.Encoded(), b.Encoded())
		}
		o, err := Parse(b.Encoded(), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		want, _ := o.String("s")
		secret, err := member(o, "s", Value.Secret)
		if err != nil || string(secret) != want {
			t.Errorf("%q: read as %q, %v", text, secret, err)
		}
		clear(secret)
		if again, _ := o.String("s"); again != want {
			t.Errorf("%q: the object changed to %q", text, again)
		}
	}
	o, _ := Parse([]byte(`{"n":1}`), Limits{})
	for _, name := range []string{"n", "none"} {
		if b, err := member(o, name, Value.Secret); err == nil || b != nil {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := member(o, "n", Value.Secret); !errors.Is(err, ErrType) {
		t.Errorf("a number: %v", err)
	}
}
