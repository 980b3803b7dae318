package wire

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// Parse parses one object. The first byte of b must be its opening brace, by which MSL
// recognizes JSON, and the last its closing brace: whitespace is accepted inside the
// object but not around it.
func Parse(b []byte, lim Limits) (Object, error) {
	return parse(b, lim, make([]node, 0, fewNodes))
}

// fewNodes are those of a small object.
const fewNodes = 16

// parse appends the nodes to nodes, in its spare room as far as that suffices.
func parse(b []byte, lim Limits, nodes []node) (Object, error) {
	lim = lim.withDefaults()
	if len(b) > lim.Object {
		return Object{}, fmt.Errorf("wire: byte %d: %w", lim.Object, ErrTooLong)
	}
	if len(b) == 0 || b[0] != '{' {
		return Object{}, syntaxError(0, "not an object")
	}
	if !utf8.Valid(b) {
		return Object{}, syntaxError(0, "not UTF-8")
	}
	o, err := parseFirst(b, lim, nodes)
	if end := len(o.Raw()); err == nil && end != len(b) {
		return Object{}, syntaxError(end, "data after the object")
	}
	return o, err
}

// parseFirst parses the object that b begins with. It takes any bytes for UTF-8.
func parseFirst(b []byte, lim Limits, nodes []node) (Object, error) {
	p := parser{src: b, lim: lim, nodes: append(nodes, node{})}
	if err := p.value(0, 1); err != nil {
		return Object{}, err
	}
	return Object{Value{src: b[:p.pos:p.pos], nodes: p.nodes}}, nil
}

type parser struct {
	src   []byte
	pos   int
	nodes []node
	lim   Limits
}

// peek returns the byte at the current position, or 0 at the end of the input. A zero
// byte is accepted nowhere, so the two need not be distinguished.
func (p *parser) peek() byte {
	if p.pos < len(p.src) {
		return p.src[p.pos]
	}
	return 0
}

func (p *parser) skipSpace() {
	for p.pos < len(p.src) && isSpace(p.src[p.pos]) {
		p.pos++
	}
}

func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\r' || c == '\n'
}

// value parses the value at the current position into node i, which may have a name
// already.
func (p *parser) value(i, depth int) error {
	at := p.pos
	kind, escaped, err := p.content(i, depth)
	n := &p.nodes[i]
	n.kind, n.valueEscaped, n.at, n.end, n.nextNode = kind, escaped, uint32(at), uint32(p.pos), uint32(len(p.nodes))
	return err
}

// content moves past the value at the current position, which belongs to node i.
func (p *parser) content(i, depth int) (kind Kind, escaped bool, err error) {
	switch p.peek() {
	case '"':
		escaped, err = p.str()
		return StringKind, escaped, err
	case '{':
		return ObjectKind, false, p.composite(i, depth, '}')
	case '[':
		return ArrayKind, false, p.composite(i, depth, ']')
	case 't':
		return BoolKind, false, p.literal("true")
	case 'f':
		return BoolKind, false, p.literal("false")
	}
	return NumberKind, false, p.number()
}

// composite parses the object or array at the current position, which ends with the
// byte last.
func (p *parser) composite(i, depth int, last byte) error {
	if depth > p.lim.Depth {
		return fmt.Errorf("wire: byte %d: %w", p.pos, ErrTooDeep)
	}
	p.pos++
	p.skipSpace()
	if p.peek() == last {
		p.pos++
		return nil
	}
	names := nameSet{}
	for {
		child := len(p.nodes)
		if err := p.child(i, depth, last == '}'); err != nil {
			return err
		}
		if last == '}' {
			names.add(p.src, &p.nodes[child])
		}
		p.skipSpace()
		switch p.peek() {
		case ',':
			p.pos++
			p.skipSpace()
		case last:
			p.pos++
			return p.checkNames(i, names)
		default:
			return syntaxError(p.pos, "expected a comma or the end")
		}
	}
}

// child parses one member or element of the value of node parent.
func (p *parser) child(parent, depth int, named bool) error {
	i := len(p.nodes)
	if i > p.lim.Members {
		return limitError(p.pos, "too many members")
	}
	p.nodes = append(p.nodes, node{})
	p.nodes[parent].children++
	if named {
		if err := p.memberName(&p.nodes[i]); err != nil {
			return err
		}
	}
	return p.value(i, depth+1)
}

func (p *parser) memberName(n *node) (err error) {
	if p.peek() != '"' {
		return syntaxError(p.pos, "expected a member name")
	}
	n.nameAt = uint32(p.pos + 1)
	n.nameEscaped, err = p.str()
	if err != nil {
		return err
	}
	n.nameEnd = uint32(p.pos - 1)
	p.skipSpace()
	if p.peek() != ':' {
		return syntaxError(p.pos, "expected a colon")
	}
	p.pos++
	p.skipSpace()
	return nil
}

// str moves past the string at the current position.
func (p *parser) str() (hasEscapes bool, err error) {
	start := p.pos
	p.pos++
	for {
		p.pos += plainLen(p.src[p.pos:])
		switch p.peek() {
		case '"':
			p.pos++
			return hasEscapes, nil
		case '\\':
			_, size := escaped(p.src[p.pos:])
			if size == 0 {
				return false, syntaxError(p.pos, "bad escape")
			}
			p.pos += size
			hasEscapes = true
		default:
			return false, syntaxError(start, "control character in string, or no end")
		}
	}
}

func (p *parser) literal(word string) error {
	if !bytes.HasPrefix(p.src[p.pos:], []byte(word)) {
		return syntaxError(p.pos, "expected a value")
	}
	p.pos += len(word)
	return nil
}

// number moves past the number at the current position. Its value is left to the reader
// of the member, since unknown members may hold any number.
func (p *parser) number() error {
	if p.peek() == '-' {
		p.pos++
	}
	if p.peek() == '0' {
		p.pos++
	} else if !p.digits() {
		return syntaxError(p.pos, "expected a value")
	}
	if p.peek() == '.' {
		p.pos++
		if !p.digits() {
			return syntaxError(p.pos, "expected a digit")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.pos++
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		if !p.digits() {
			return syntaxError(p.pos, "expected a digit")
		}
	}
	return nil
}

// digits moves past one or more digits.
func (p *parser) digits() bool {
	start := p.pos
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.pos++
	}
	return p.pos > start
}

// A nameSet cheaply shows that the names of most objects differ: each name sets a bit
// that depends on its length and some of its bits.
type nameSet struct {
	bits  uint64
	check bool // two names have the same bit, or one has escapes
}

func (s *nameSet) add(src []byte, n *node) {
	name := src[n.nameAt:n.nameEnd]
	h := 6 * uint(len(name))
	if len(name) > 0 {
		h += uint(name[0]) + uint(name[len(name)-1]) + 2*uint(name[len(name)/2])
	}
	bit := uint64(1) << (h & 63)
	s.check = s.check || n.nameEscaped || s.bits&bit != 0
	s.bits |= bit
}

// fewNames is the number of members up to which comparing all names with one
// another is cheaper than a map.
const fewNames = 16

// checkNames rejects an object with two members of the same name. Names are compared
// unescaped, since otherwise a duplicate could hide behind an escape.
func (p *parser) checkNames(i int, names nameSet) error {
	if !names.check {
		return nil
	}
	object := Value{src: p.src, nodes: p.nodes, i: i}
	object.node().nextNode = uint32(len(p.nodes))
	if object.Len() > fewNames || hasEscapedName(object) {
		return checkManyNames(object)
	}
	return checkFewNames(object)
}

func hasEscapedName(object Value) bool {
	for v, ok := object.first(); ok; v, ok = v.next(object) {
		if v.node().nameEscaped {
			return true
		}
	}
	return false
}

func checkFewNames(object Value) error {
	for v, ok := object.first(); ok; v, ok = v.next(object) {
		name := v.name()
		for w, ok := v.next(object); ok; w, ok = w.next(object) {
			if bytes.Equal(name, w.name()) {
				return syntaxError(int(w.node().nameAt), "duplicate member")
			}
		}
	}
	return nil
}

func checkManyNames(object Value) error {
	seen := make(map[string]bool, object.Len())
	for v, ok := object.first(); ok; v, ok = v.next(object) {
		name := string(v.name())
		if seen[name] {
			return syntaxError(int(v.node().nameAt), "duplicate member")
		}
		seen[name] = true
	}
	return nil
}
