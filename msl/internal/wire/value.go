package wire

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strconv"
)

// node is one value of a parsed object. The nodes of an object are stored in
// order of appearance in one slice, so that the descendants of a value follow
// it directly.
type node struct {
	kind         Kind
	nameEscaped  bool
	valueEscaped bool
	nameAt       uint32 // the name without its quotes
	nameEnd      uint32
	at           uint32 // the value, strings with their quotes
	end          uint32
	children     uint32
	nextNode     uint32 // the node after the last descendant
}

// Value is a member of an object or an element of an array. Its accessors return
// [ErrType] unless the value is of the requested type. The zero Value has no type.
type Value struct {
	src   []byte
	nodes []node
	i     int
}

func (v Value) node() *node {
	if v.i >= len(v.nodes) {
		return &node{}
	}
	return &v.nodes[v.i]
}

// first returns the first member or element of v.
func (v Value) first() (Value, bool) {
	if v.node().children == 0 {
		return Value{}, false
	}
	v.i++
	return v, true
}

// next returns the member or element of parent that follows v.
func (v Value) next(parent Value) (Value, bool) {
	v.i = int(v.node().nextNode)
	return v, v.i < int(parent.node().nextNode)
}

func (v Value) name() []byte {
	return v.node().name(v.src)
}

func (n *node) name(src []byte) []byte {
	name := src[n.nameAt:n.nameEnd]
	if n.nameEscaped {
		return unescape(name)
	}
	return name
}

// isNamed compares without unescaping names that are too long to be equal, so that
// looking up a member stays cheap however others are written: an escape takes at most six
// bytes per byte of the name.
func (n *node) isNamed(src []byte, name string) bool {
	size := int(n.nameEnd - n.nameAt)
	if !n.nameEscaped {
		return size == len(name) && string(src[n.nameAt:n.nameEnd]) == name
	}
	return size > len(name) && size <= 6*len(name) && string(n.name(src)) == name
}

// contents returns the bytes a string stands for.
func (v Value) contents() []byte {
	n := v.node()
	s := v.src[n.at+1 : n.end-1]
	if n.valueEscaped {
		return unescape(s)
	}
	return s
}

// Kind returns the kind of v.
func (v Value) Kind() Kind { return v.node().kind }

// Raw returns the exact bytes v was parsed from.
func (v Value) Raw() []byte {
	n := v.node()
	return v.src[n.at:n.end:n.end]
}

// Len returns the number of members of an object or elements of an array.
func (v Value) Len() int { return int(v.node().children) }

// Text returns a string.
func (v Value) Text() (string, error) {
	if v.Kind() != StringKind {
		return "", ErrType
	}
	return string(v.contents()), nil
}

// Secret returns a string as bytes that are not shared, so that the caller can overwrite
// them. It makes no string of them.
func (v Value) Secret() ([]byte, error) {
	if v.Kind() != StringKind {
		return nil, ErrType
	}
	n := v.node()
	return unescape(v.src[n.at+1 : n.end-1]), nil
}

// Int returns an integer, see [Object.Int].
func (v Value) Int() (int64, error) {
	raw := v.Raw()
	// ParseInt accepts -0 as 0, but an identifier must not have two encodings.
	if v.Kind() != NumberKind || bytes.HasPrefix(raw, []byte("-0")) {
		return 0, ErrType
	}
	i, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, ErrType
	}
	return i, nil
}

// Bool returns a boolean.
func (v Value) Bool() (bool, error) {
	if v.Kind() != BoolKind {
		return false, ErrType
	}
	return v.src[v.node().at] == 't', nil
}

// Bytes returns binary data, see [Object.Bytes].
func (v Value) Bytes() ([]byte, error) {
	if v.Kind() != StringKind {
		return nil, ErrType
	}
	return DecodeBase64(v.contents())
}

// decoded is Bytes, decoded in place.
func (v Value) decoded() ([]byte, error) {
	if v.Kind() != StringKind {
		return nil, ErrType
	}
	s := v.contents()
	return decodeBase64(s[:base64.StdEncoding.DecodedLen(len(s))], s)
}

func (v Value) appendBytes(dst []byte) ([]byte, error) {
	if v.Kind() != StringKind {
		return nil, ErrType
	}
	s := v.contents()
	at, size := len(dst), base64.StdEncoding.DecodedLen(len(s))
	dst = slices.Grow(dst, size)
	b, err := decodeBase64(dst[at:at+size], s)
	return dst[:at+len(b)], err
}

// Object returns an object.
func (v Value) Object() (Object, error) {
	if v.Kind() != ObjectKind {
		return Object{}, ErrType
	}
	return Object{v}, nil
}

// Objects returns an array of objects.
func (v Value) Objects() ([]Object, error) {
	return elements(v, Value.Object)
}

// Strings returns an array of strings.
func (v Value) Strings() ([]string, error) {
	return elements(v, Value.Text)
}

// Elements returns the elements of an array.
func (v Value) Elements() ([]Value, error) {
	return elements(v, func(e Value) (Value, error) { return e, nil })
}

func elements[T any](v Value, get func(Value) (T, error)) ([]T, error) {
	if v.Kind() != ArrayKind {
		return nil, ErrType
	}
	ts := make([]T, 0, v.Len())
	for e, ok := v.first(); ok; e, ok = e.next(v) {
		t, err := get(e)
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}
