package wire

import (
	"errors"
	"fmt"
	"io"
)

const (
	minBuffer = 8 << 10 // of a Decoder: most short messages fit
	maxEmpty  = 100     // reads without data before giving up
)

// Decoder reads the objects of a message stream. It reads no further than needed to
// complete the requested object, so it never waits for a peer that has nothing more to
// send. Bytes read beyond the object stay in the Decoder.
//
// The objects it returns stay valid. Small ones may share a buffer.
//
// After an error other than [io.EOF] the position in the stream is lost, and
// every further call returns that error.
type Decoder struct {
	r     io.Reader
	hold  Holder
	lim   Limits
	buf   []byte // never overwritten where an object was returned
	start int    // of the bytes not yet returned
	scan  scanner
	hint  int   // size of the last object
	rerr  error // of r, returned once the bytes before it are used up
	err   error
}

// A Holder is a reader whose Hold is called before a buffer of that many bytes replaces
// the last one. Its error ends the reading.
type Holder interface{ Hold(size int) error }

// NewDecoder returns a Decoder that reads from r, which may be a [Holder].
func NewDecoder(r io.Reader, lim Limits) *Decoder {
	hold, _ := r.(Holder)
	return &Decoder{r: r, hold: hold, lim: lim.withDefaults()}
}

// Shrink drops the buffer if it contains no unreturned bytes.
func (d *Decoder) Shrink() error {
	if d.Buffered() > 0 || d.buf == nil {
		return nil
	}
	d.buf, d.start, d.hint = nil, 0, min(d.hint, minBuffer)
	if d.hold == nil {
		return nil
	}
	return d.hold.Hold(0)
}

// Buffered returns the number of bytes that were read but are not part of a returned
// object.
func (d *Decoder) Buffered() int { return len(d.buf) - d.start }

// First returns the first object of a message, of at most [Limits].Header bytes.
// Nothing may precede it, not even whitespace: the first byte of a message names
// its format. The error is [io.EOF] if the stream has ended.
func (d *Decoder) First() (Object, error) {
	return d.object(false, d.lim.Header)
}

// FirstAfter is like First on a stream of messages, where parts of the previous message
// may remain. It skips objects with a member of that name, and objects too long to be a
// first one, which it does not hold in memory.
func (d *Decoder) FirstAfter(left string) (Object, error) {
	if d.hint == 0 { // there is no previous message
		return d.First()
	}
	for skip := false; ; skip = true {
		o, err := d.object(skip, d.lim.Header)
		switch {
		case errors.Is(err, ErrTooLong):
			if d.err = d.passOver(); d.err != nil {
				return Object{}, d.err
			}
		case err != nil || !o.Has(left):
			return o, err
		}
	}
}

// Next returns a further object of a message. Whitespace before it is skipped.
// The error is [io.EOF] if the stream ends with no more than whitespace.
func (d *Decoder) Next() (Object, error) {
	return d.object(true, d.lim.Object)
}

func (d *Decoder) object(skip bool, limit int) (Object, error) {
	if d.err != nil {
		return Object{}, d.err
	}
	o, err := d.read(skip, limit)
	if err != nil && err != io.EOF {
		d.err = err
	}
	return o, err
}

func (d *Decoder) read(skip bool, limit int) (Object, error) {
	if err := d.open(skip, limit); err != nil {
		return Object{}, err
	}
	d.scan = scanner{}
	for {
		done, err := d.scan.run(d.buf[d.start:])
		if err != nil {
			return Object{}, err
		}
		if done {
			return d.take(d.scan.pos, limit)
		}
		if err := d.more(limit); err != nil {
			return Object{}, err
		}
	}
}

// passOver moves to the end of the current object, which was too long to be returned.
func (d *Decoder) passOver() error {
	d.scan = scanner{}
	for passed := 0; ; {
		done, err := d.scan.run(d.buf[d.start:])
		if err != nil {
			return err
		}
		if passed += d.scan.pos; passed > d.lim.Object {
			return tooLong(d.lim.Object)
		}
		rest := copy(d.buf[d.start:], d.buf[d.start+d.scan.pos:])
		d.buf, d.scan.pos = d.buf[:d.start+rest], 0
		if done {
			return nil
		}
		if err := d.more(d.lim.Object); err != nil {
			return err
		}
	}
}

// more reads more of the current object.
func (d *Decoder) more(limit int) error {
	err := d.fill(limit)
	if err == io.EOF {
		return fmt.Errorf("wire: %w", ErrTruncated)
	}
	return err
}

// open moves to the first byte of an object.
func (d *Decoder) open(skip bool, limit int) error {
	for skipped := 0; ; skipped++ {
		if d.Buffered() == 0 {
			if err := d.fill(limit); err != nil {
				return err
			}
		}
		switch c := d.buf[d.start]; {
		case c == '{':
			return nil
		case !skip || !isSpace(c):
			return syntaxError(skipped, "not an object")
		case skipped == d.lim.Object:
			return limitError(skipped, "too much whitespace")
		}
		d.start++
	}
}

// take returns the next n bytes, which are an object.
func (d *Decoder) take(n, limit int) (Object, error) {
	end, lim := d.start+n, d.lim
	lim.Object = limit
	o, err := Parse(d.buf[d.start:end:end], lim)
	if err != nil {
		return Object{}, err
	}
	d.start = end
	d.hint = n
	return o, nil
}

// fill reads once, or until there is something to read, as long as fewer than limit
// bytes are buffered.
func (d *Decoder) fill(limit int) error {
	if d.Buffered() >= limit {
		return tooLong(limit)
	}
	if d.rerr == nil {
		if err := d.grow(limit); err != nil {
			return err
		}
	}
	for range maxEmpty {
		if d.rerr != nil {
			return d.rerr
		}
		n, err := d.r.Read(d.buf[len(d.buf):cap(d.buf)])
		d.buf = d.buf[:len(d.buf)+n]
		d.rerr = readError(err)
		if n > 0 {
			return nil
		}
	}
	return readError(io.ErrNoProgress)
}

func readError(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return fmt.Errorf("wire: %w", err)
}

// grow makes room for a read. A new buffer leaves the objects in the old one alone and
// takes over only what was not yet returned. It is doubled rather than made for the
// largest object allowed, so that a peer has to send as much as it makes the Decoder
// allocate.
func (d *Decoder) grow(limit int) error {
	if len(d.buf) < cap(d.buf) {
		return nil
	}
	rest := d.buf[d.start:]
	size := 2 * len(rest)
	if len(rest) == 0 {
		size = d.hint
	}
	size = max(minBuffer, min(size, limit))
	if d.hold != nil {
		if err := d.hold.Hold(size); err != nil {
			return err
		}
	}
	d.buf = append(make([]byte, 0, size), rest...)
	d.start = 0
	return nil
}

func tooLong(limit int) error { return fmt.Errorf("wire: byte %d: %w", limit, ErrTooLong) }
