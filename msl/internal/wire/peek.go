package wire

import "bytes"

// A peeker is a source of which a Decoder can see what it will read next.
type peeker interface {
	Peek(most int) (o Object, arrived bool)
}

// A sized source knows how many bytes are still to come, as a [bytes.Reader] does. They
// can be waited for: the peer does not wait for an answer to what it sent before.
type sized interface{ Len() int }

// Peek returns a copy of the object that Next will return, if it is well-formed, has no
// more than so many bytes, and all of it has arrived or is known to come. It
// leaves every error to Next.
func (d *Decoder) Peek(most int) (o Object, arrived bool) {
	if d.err != nil {
		return Object{}, false
	}
	if source, ok := d.r.(peeker); ok && d.Buffered() == 0 {
		if o, arrived = source.Peek(most); arrived {
			return o, true
		}
	}
	most = min(most, d.lim.Object)
	for {
		raw, whole := d.ahead()
		if whole && len(raw) <= most {
			o, err := Parse(bytes.Clone(raw), d.lim)
			return o, err == nil
		}
		if whole || !d.comes(most) || d.fill(most) != nil {
			return Object{}, false
		}
	}
}

// ahead returns the bytes of the next object, if it is there to its end.
func (d *Decoder) ahead() (raw []byte, whole bool) {
	rest := bytes.TrimLeft(d.buf[d.start:], " \t\r\n")
	if len(rest) == 0 || rest[0] != '{' {
		return nil, len(rest) > 0
	}
	var scan scanner
	done, err := scan.run(rest)
	return rest[:scan.pos], done || err != nil
}

// comes reports whether more is to come of what may be peeked at.
func (d *Decoder) comes(most int) bool {
	source, ok := d.r.(sized)
	return ok && d.rerr == nil && d.Buffered() < most && source.Len() > 0
}
