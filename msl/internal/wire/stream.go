package wire

import (
	"fmt"
	"io"
)

const (
	minBuffer = 8 << 10 // of a Decoder: most short messages fit
	maxEmpty  = 100     // reads without data before giving up
)

// Decoder reads the objects of a message stream. It reads no further than it
// must to complete the object asked for, so it never waits for a peer that has
// said all it will say. What one read brought beyond the object stays in the
// Decoder.
//
// The objects it returns stay valid. Small ones may share a buffer.
//
// After an error other than [io.EOF] the position in the stream is lost, and
// every further call returns that error.
type Decoder struct {
	r     io.Reader
	lim   Limits
	buf   []byte // never overwritten where an object was handed out
	start int    // of the bytes not handed out yet
	scan  scanner
	hint  int   // size of the last object
	rerr  error // of r, once the bytes before it are used up
	err   error
}

// NewDecoder returns a Decoder that reads from r.
func NewDecoder(r io.Reader, lim Limits) *Decoder {
	return &Decoder{r: r, lim: lim.withDefaults()}
}

// Buffered returns the number of bytes that were read but are not part of an
// object returned yet.
func (d *Decoder) Buffered() int { return len(d.buf) - d.start }

// First returns the first object of a message. Nothing may precede it, not
// even whitespace: the first byte of a message names its format. The error is
// [io.EOF] if the stream has ended.
func (d *Decoder) First() (Object, error) {
	return d.object(false)
}

// Next returns a further object of a message. Whitespace before it is skipped.
// The error is [io.EOF] if the stream ends with no more than whitespace.
func (d *Decoder) Next() (Object, error) {
	return d.object(true)
}

func (d *Decoder) object(skip bool) (Object, error) {
	if d.err != nil {
		return Object{}, d.err
	}
	o, err := d.read(skip)
	if err != nil && err != io.EOF {
		d.err = err
	}
	return o, err
}

func (d *Decoder) read(skip bool) (Object, error) {
	if err := d.open(skip); err != nil {
		return Object{}, err
	}
	d.scan = scanner{}
	for {
		done, err := d.scan.run(d.buf[d.start:])
		if err != nil {
			return Object{}, err
		}
		if done {
			return d.take(d.scan.pos)
		}
		if err := d.fill(); err == io.EOF {
			return Object{}, fmt.Errorf("wire: %w", ErrTruncated)
		} else if err != nil {
			return Object{}, err
		}
	}
}

// open moves to the first byte of an object.
func (d *Decoder) open(skip bool) error {
	for skipped := 0; ; skipped++ {
		if d.Buffered() == 0 {
			if err := d.fill(); err != nil {
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

// take hands out the next n bytes, which are an object.
func (d *Decoder) take(n int) (Object, error) {
	end := d.start + n
	o, err := Parse(d.buf[d.start:end:end], d.lim)
	if err != nil {
		return Object{}, err
	}
	d.start = end
	d.hint = n
	return o, nil
}

// fill reads once, or until there is something to read.
func (d *Decoder) fill() error {
	if d.Buffered() >= d.lim.Object {
		return fmt.Errorf("wire: byte %d: %w", d.Buffered(), ErrTooLong)
	}
	if d.rerr == nil {
		d.grow()
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

// grow makes room for a read. A new buffer leaves the objects in the old one
// alone and takes over only what is not handed out. It is doubled rather than
// made for the largest object allowed: a peer has to send what it makes us
// allocate.
func (d *Decoder) grow() {
	if len(d.buf) < cap(d.buf) {
		return
	}
	rest := d.buf[d.start:]
	size := max(minBuffer, 2*len(rest))
	if len(rest) == 0 {
		size = max(size, d.hint)
	}
	d.buf = append(make([]byte, 0, size), rest...)
	d.start = 0
}
