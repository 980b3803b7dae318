package wire

import "fmt"

// Fields reads the members of an object in turn and remembers the first failure. After a
// failure, every read returns a zero value, so a caller needs to check Err only once,
// after reading everything and before using any of it.
type Fields struct {
	object Object
	err    error
}

// FieldsOf returns a reader for the members of a parsed object.
func FieldsOf(o Object) *Fields { return &Fields{object: o} }

// ParseFields parses b, within the default limits, and returns a reader for its
// members. If b is not an object, that is the first failure.
func ParseFields(b []byte) *Fields {
	o, err := Parse(b, Limits{})
	return &Fields{object: o, err: err}
}

// Err returns the first failure, or nil.
func (f *Fields) Err() error { return f.err }

// Has reports whether the object has a member of that name. After a failure it returns
// false.
func (f *Fields) Has(name string) bool { return f.err == nil && f.object.Has(name) }

// String reads a member that is a string.
func (f *Fields) String(name string) string { return read(f, name, Value.Text) }

// Secret reads a member that is a string, as bytes that the caller can overwrite.
func (f *Fields) Secret(name string) []byte { return read(f, name, Value.Secret) }

// Int reads a member that is an integer.
func (f *Fields) Int(name string) int64 { return read(f, name, Value.Int) }

// Bool reads a member that is a boolean.
func (f *Fields) Bool(name string) bool { return read(f, name, Value.Bool) }

// Bytes reads a binary member.
func (f *Fields) Bytes(name string) []byte { return read(f, name, Value.Bytes) }

// Decoded reads a binary member and decodes it in place: the input of the parser then has
// other bytes there. Such a member must not be read again.
func (f *Fields) Decoded(name string) []byte { return read(f, name, Value.decoded) }

// AppendBytes reads a binary member, and appends it to dst. After a failure it returns
// dst.
func (f *Fields) AppendBytes(dst []byte, name string) []byte {
	b := read(f, name, func(v Value) ([]byte, error) { return v.appendBytes(dst) })
	if f.err != nil {
		return dst
	}
	return b
}

// Object reads a member that is an object.
func (f *Fields) Object(name string) Object { return read(f, name, Value.Object) }

// Fields returns a reader for a member that is an object. It inherits a failure of f.
func (f *Fields) Fields(name string) *Fields {
	return &Fields{object: f.Object(name), err: f.err}
}

// Strings reads a member that is an array of strings.
func (f *Fields) Strings(name string) []string { return read(f, name, Value.Strings) }

// Objects reads a member that is an array of at most max objects, since each may cost a
// device operation. A longer array is [ErrTooMany].
func (f *Fields) Objects(name string, max int) []Object {
	list := read(f, name, Value.Objects)
	if f.err == nil && len(list) > max {
		f.err = fmt.Errorf("wire: member %q has %d elements: %w", name, len(list), ErrTooMany)
	}
	return list
}

// OptionalString reads a member that is a string, or returns "" without one.
func (f *Fields) OptionalString(name string) (v string) {
	if f.Has(name) {
		v = f.String(name)
	}
	return v
}

// OptionalBool reads a member that is a boolean, or returns false without one.
func (f *Fields) OptionalBool(name string) (v bool) {
	if f.Has(name) {
		v = f.Bool(name)
	}
	return v
}

// OptionalStrings reads a member that is an array of strings, or returns nil
// without one.
func (f *Fields) OptionalStrings(name string) (v []string) {
	if f.Has(name) {
		v = f.Strings(name)
	}
	return v
}

// OptionalInt reads a member that is an integer, or returns absent without one.
func (f *Fields) OptionalInt(name string, absent int64) int64 {
	if !f.Has(name) {
		return absent
	}
	return f.Int(name)
}

func read[T any](f *Fields, name string, get func(Value) (T, error)) (v T) {
	if f.err != nil {
		return v
	}
	v, f.err = member(f.object, name, get)
	return v
}
