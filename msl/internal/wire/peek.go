package wire

import "bytes"

// A peeker is a source that shows a Decoder what it will read next.
type peeker interface {
	Peek(most int) (o Object, arrived bool)
}

// A sized source knows how many more bytes will come, as a [bytes.Reader] does. It is
// safe to wait for them: the peer is not waiting for an answer to what it sent before.
type sized interface{ Len() int }

// Await waits for what Peek returns, if that is known to come.
func (d *Decoder) Await(most int) {
	most = min(most, d.lim.Object)
	var scan scanner
	for d.comes(most) {
		if _, whole := d.ahead(&scan); whole || d.fillBehind(most) != nil {
			return
		}
	}
}

// Peek returns a copy of the object that Next will return, if it is well-formed, is at
// most "most" bytes long, and has completely arrived. It leaves every error to Next. The
// last object returned stays valid.
func (d *Decoder) Peek(most int) (o Object, arrived bool) {
	if d.err != nil {
		return Object{}, false
	}
	if source, ok := d.r.(peeker); ok && d.Buffered() == 0 {
		if o, arrived = source.Peek(most); arrived {
			return o, true
		}
	}
	raw, whole := d.ahead(new(scanner))
	if !whole || len(raw) > min(most, d.lim.Object) {
		return Object{}, false
	}
	o, err := Parse(bytes.Clone(raw), d.lim)
	return o, err == nil
}

// Follows reports whether more of the stream is known to come.
func (d *Decoder) Follows() bool {
	if d.Buffered() > 0 {
		return true
	}
	source, ok := d.r.(sized)
	return ok && d.err == nil && d.rerr == nil && source.Len() > 0
}

// Ahead is Next for an object that is known to come and for which want returns true. It
// continues to read as long as goOn returns true. It leaves every other object, and every
// error, to Next.
func (d *Decoder) Ahead(goOn func() bool, want func(Object) bool) (o Object, ok bool) {
	var scan scanner
	d.Memory() // that is read into
	for {
		if _, whole := d.ahead(&scan); whole {
			break
		}
		if d.err != nil || !d.Follows() || !goOn() || d.fill(d.lim.Object) != nil {
			return Object{}, false
		}
	}
	start := d.start
	if o, err := d.Next(); err == nil && want(o) {
		return o, true
	}
	d.start = start
	return Object{}, false
}

// ahead returns the bytes of the next object, if all of it has arrived. The scanner
// continues where it was.
func (d *Decoder) ahead(scan *scanner) (raw []byte, whole bool) {
	rest := bytes.TrimLeft(d.unread(), " \t\r\n")
	if len(rest) == 0 || rest[0] != '{' {
		return nil, len(rest) > 0
	}
	done, err := scan.run(rest)
	return rest[:scan.pos], done || err != nil
}

// comes reports whether more of what may be peeked at is to come.
func (d *Decoder) comes(most int) bool {
	source, ok := d.r.(sized)
	return ok && d.err == nil && d.rerr == nil && d.mem != nil && d.Buffered() < most && source.Len() > 0
}
