package wire

import "fmt"

// Kind is the type of a JSON value. There is no kind for null, which MSL does not use
// and the parser rejects.
type Kind uint8

// The kinds of values. The zero Kind belongs to no value.
const (
	StringKind Kind = 1 + iota
	NumberKind
	BoolKind
	ObjectKind
	ArrayKind
)

// String returns the name of the kind.
func (k Kind) String() string {
	switch k {
	case StringKind:
		return "string"
	case NumberKind:
		return "number"
	case BoolKind:
		return "boolean"
	case ObjectKind:
		return "object"
	case ArrayKind:
		return "array"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Object is a parsed JSON object. It refers to the input of the parser, which
// must not be modified while the object is in use. The zero Object has no
// members.
//
// Methods that return an error return [ErrMissing] if there is no member of that name
// and [ErrType] if it is not of the requested type.
type Object struct{ v Value }

// Raw returns the exact bytes the object was parsed from, braces included.
func (o Object) Raw() []byte { return o.v.Raw() }

// Len returns the number of members.
func (o Object) Len() int { return o.v.Len() }

// Has reports whether the object has a member of that name.
func (o Object) Has(name string) bool { return o.index(name) > 0 }

// Names returns the names of the members in order of appearance.
func (o Object) Names() []string {
	names := make([]string, 0, o.Len())
	for v, ok := o.v.first(); ok; v, ok = v.next(o.v) {
		names = append(names, string(v.name()))
	}
	return names
}

// Value returns the member of that name, of any kind.
func (o Object) Value(name string) (Value, bool) {
	if i := o.index(name); i > 0 {
		return Value{o.v.src, o.v.nodes, i}, true
	}
	return Value{}, false
}

// index returns the node of the member of that name, or 0.
func (o Object) index(name string) int {
	nodes, src := o.v.nodes, o.v.src
	if o.v.i >= len(nodes) {
		return 0
	}
	end := int(nodes[o.v.i].nextNode)
	for i := o.v.i + 1; i < end; i = int(nodes[i].nextNode) {
		if nodes[i].isNamed(src, name) {
			return i
		}
	}
	return 0
}

// String returns a member that is a string.
func (o Object) String(name string) (string, error) {
	return member(o, name, Value.Text)
}

// Int returns a member that is an integer. Only -?(0|[1-9][0-9]*) within the range of
// int64 is accepted, but not -0, fractions or exponents.
func (o Object) Int(name string) (int64, error) {
	return member(o, name, Value.Int)
}

// Bool returns a member that is a boolean.
func (o Object) Bool(name string) (bool, error) {
	return member(o, name, Value.Bool)
}

// Bytes returns a binary member, which in JSON is a Base64 string as accepted by
// [DecodeBase64]. The empty string gives an empty slice that is not nil.
func (o Object) Bytes(name string) ([]byte, error) {
	return member(o, name, Value.Bytes)
}

// Object returns a member that is an object.
func (o Object) Object(name string) (Object, error) {
	return member(o, name, Value.Object)
}

// Strings returns a member that is an array of strings.
func (o Object) Strings(name string) ([]string, error) {
	return member(o, name, Value.Strings)
}

func member[T any](o Object, name string, get func(Value) (T, error)) (T, error) {
	var zero T
	v, ok := o.Value(name)
	if !ok {
		return zero, &memberError{name, ErrMissing}
	}
	t, err := get(v)
	if err != nil {
		return zero, &memberError{name, err}
	}
	return t, nil
}
