package wire

import "math"

// Defaults of the fields of [Limits].
const (
	DefaultObject  = 10 << 20
	DefaultDepth   = 32
	DefaultMembers = 4096
)

// Limits limits what is parsed. Fields that are zero or negative mean the defaults.
type Limits struct {
	Object  int // bytes of one object
	Header  int // bytes of the first object of a message; the default is Object
	Depth   int // nesting of objects and arrays, the outermost object being 1
	Members int // members and elements of one object, including those of nested values
}

func (l Limits) withDefaults() Limits {
	if l.Object <= 0 {
		l.Object = DefaultObject
	}
	if l.Depth <= 0 {
		l.Depth = DefaultDepth
	}
	if l.Members <= 0 {
		l.Members = DefaultMembers
	}
	// Offsets are stored in 32 bits.
	l.Object = min(l.Object, math.MaxInt32)
	if l.Header <= 0 {
		l.Header = l.Object
	}
	return l
}
