package wire

import (
	"sync"
	"unicode/utf8"
)

// Memory is what reading or writing one message needs for a short time. It is reused for
// other messages: nothing in it may be referred to after Free.
type Memory struct {
	// Content, Scratch and Tag are for the caller, who overwrites and replaces them.
	Content, Scratch, Tag []byte

	buf    []byte // of a Decoder
	filled int    // bytes of buf that were read into
	nodes  []node // of the objects that Parse returned
}

const (
	minBuffer = 8 << 10 // of a Decoder: most short messages fit
	someNodes = 64      // those of a few objects
)

// memories holds the Memory that Free returned.
var memories = sync.Pool{New: func() any { return &Memory{nodes: make([]node, 0, someNodes)} }}

// NewMemory returns Memory to be used until Free.
func NewMemory() *Memory { return memories.Get().(*Memory) }

// Free makes the memory available to others, except for buffers that only a long message
// needs. None of the message is left in it.
func (m *Memory) Free() {
	m.forget()
	for _, b := range []*[]byte{&m.Content, &m.Scratch, &m.Tag} {
		*b = wiped((*b)[:cap(*b)])
	}
	m.buf, m.filled = wiped(m.buf[:min(m.filled, cap(m.buf))]), 0
	memories.Put(m)
}

// wiped returns the buffer of b to be used again, without what is in b, unless only a long
// message needs so much.
func wiped(b []byte) []byte {
	if cap(b) > minBuffer {
		poisoned(b)
		return nil
	}
	wipe(b)
	return b[:0]
}

// forget invalidates the objects that Parse returned.
func (m *Memory) forget() {
	poisonNodes(m.nodes)
	m.nodes = m.nodes[:0]
}

// Parse is like the function Parse, but the object is valid only until Free, or until
// the Decoder whose memory this is reads another object.
func (m *Memory) Parse(b []byte, lim Limits) (Object, error) {
	o, err := parse(b, lim, m.unused())
	if err == nil {
		m.keep(o)
	}
	return o, err
}

// unused is where Parse puts nodes, as far as it reaches.
func (m *Memory) unused() []node { return m.nodes[len(m.nodes):] }

// keep keeps the nodes of an object, if they are there.
func (m *Memory) keep(o Object) {
	if n := len(o.v.nodes); n <= cap(m.nodes)-len(m.nodes) {
		m.nodes = m.nodes[:len(m.nodes)+n]
	}
}

// parseWhole is Parse for the object that b begins with, of at most limit bytes, if b ends as
// objects do, so that it is probably all there: then nothing is looked at twice. It leaves
// everything else to the scanner, and every error.
func (m *Memory) parseWhole(b []byte, limit int, lim Limits) (Object, bool) {
	if b[len(b)-1] != '}' {
		return Object{}, false
	}
	o, err := parseFirst(b[:min(len(b), limit)], lim, m.unused())
	if err != nil || !utf8.Valid(o.Raw()) {
		return Object{}, false
	}
	m.keep(o)
	return o, true
}
