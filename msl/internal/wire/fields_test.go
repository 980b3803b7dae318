package wire

import (
	"errors"
	"testing"
)

func TestFieldsReadMembers(t *testing.T) {
	f := ParseFields([]byte(`{"s":"text","i":7,"b":true,"x":"AQI=","o":{"in":"side"},"l":[{},{}],"n":["a","b"]}`))
	if f.String("s") != "text" || f.Int("i") != 7 || !f.Bool("b") || len(f.Bytes("x")) != 2 || string(f.Secret("s")) != "text" ||
		f.Fields("o").String("in") != "side" || len(f.Objects("l", 2)) != 2 || len(f.Strings("n")) != 2 {
		t.Errorf("a member is not what was written: %v", f.Err())
	}
	if f.OptionalString("none") != "" || f.OptionalBool("none") || f.OptionalStrings("none") != nil || f.OptionalInt("none", -1) != -1 {
		t.Error("a member that is absent has a value")
	}
	if f.OptionalString("s") != "text" || len(f.OptionalStrings("n")) != 2 || f.OptionalInt("i", -1) != 7 || f.Err() != nil {
		t.Errorf("an optional member is not what was written: %v", f.Err())
	}
}

func TestFieldsRememberTheFirstFailure(t *testing.T) {
	for name, read := range map[string]struct {
		do   func(f *Fields)
		want error
	}{
		"missing":       {func(f *Fields) { f.String("none") }, ErrMissing},
		"wrong type":    {func(f *Fields) { f.Int("s") }, ErrType},
		"optional":      {func(f *Fields) { f.OptionalBool("s") }, ErrType},
		"optional int":  {func(f *Fields) { f.OptionalInt("s", 1) }, ErrType},
		"too many":      {func(f *Fields) { f.Objects("l", 1) }, ErrLimit},
		"inner failure": {func(f *Fields) { f.Fields("s") }, ErrType},
	} {
		f := ParseFields([]byte(`{"s":"text","i":7,"l":[{},{}]}`))
		read.do(f)
		first := f.Err()
		if !errors.Is(first, read.want) {
			t.Errorf("%s: %v, want %v", name, first, read.want)
		}
		if f.Int("i") != 0 || f.Has("i") || f.OptionalInt("i", -1) != -1 || f.Fields("o").Err() != first {
			t.Errorf("%s: a read after the failure returns a value", name)
		}
		if f.String("none"); f.Err() != first {
			t.Errorf("%s: a later failure took the place of the first", name)
		}
	}
	if f := ParseFields([]byte(`[]`)); f.String("s") != "" || !errors.Is(f.Err(), ErrSyntax) {
		t.Errorf("not an object: %v", f.Err())
	}
}
