package wire

import (
	"bytes"
)

// A peeker is a source of which a Decoder can see what it will read next.
type peeker interface {
	Peek(most int) (o Object, arrived bool)
}

// Peek returns a copy of the object that Next will return, without reading for it: if
// all of it has arrived, it is well-formed and it has no more than so many bytes.
func (d *Decoder) Peek(most int) (o Object, arrived bool) {
	if d.err != nil {
		return Object{}, false
	}
	if source, ok := d.r.(peeker); ok && d.Buffered() == 0 {
		return source.Peek(most)
	}
	rest := bytes.TrimLeftFunc(d.buf[d.start:], func(r rune) bool { return r < 0x80 && isSpace(byte(r)) })
	var scan scanner
	if done, err := scan.run(rest); err != nil || !done || scan.pos > min(most, d.lim.Object) || rest[0] != '{' {
		return Object{}, false
	}
	o, err := Parse(bytes.Clone(rest[:scan.pos]), d.lim)
	return o, err == nil
}
