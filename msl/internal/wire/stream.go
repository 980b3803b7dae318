package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

const maxEmpty = 100 // reads without data before giving up

// Decoder reads the objects of a message stream. It reads no further than needed to
// complete the requested object, so it never waits for a peer that has nothing more to
// send. Bytes read beyond the object stay in the Decoder.
//
// An object that it returns is valid until it reads another one, or until Shrink.
//
// After an error other than [io.EOF] the position in the stream is lost, and
// every further call returns that error.
type Decoder struct {
	r     io.Reader
	hold  Holder
	lim   Limits
	mem   *Memory // nil while nothing was read
	start int     // of the bytes not yet returned
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

// Memory returns the memory that the Decoder works in, for data that belongs to the
// object it returned last. After Shrink, it belongs to others.
func (d *Decoder) Memory() *Memory {
	if d.mem == nil {
		d.mem = NewMemory()
	}
	return d.mem
}

// Shrink frees the memory if it contains no unreturned bytes.
func (d *Decoder) Shrink() error {
	if d.Buffered() > 0 || d.mem == nil {
		return nil
	}
	d.mem.Free()
	d.mem, d.start, d.hint = nil, 0, min(d.hint, minBuffer)
	if d.hold == nil {
		return nil
	}
	return d.hold.Hold(0)
}

// Err returns the error after which nothing more can be read, or nil.
func (d *Decoder) Err() error { return d.err }

// Free ends the reading. Every further call returns an error.
func (d *Decoder) Free() {
	d.err = errFreed
	if d.mem != nil {
		d.mem.Free()
		d.mem, d.start = nil, 0
	}
}

// errFreed says that something was read after Free.
var errFreed = errors.New("wire: reading has ended")

// Later reports whether d has returned an object before.
func Later(d *Decoder) bool { return d.hint > 0 }

// Buffered returns the number of bytes that were read but are not part of a returned
// object.
func (d *Decoder) Buffered() int { return len(d.unread()) }

// Mentions reports whether the data that d has read, but not yet returned, contains one
// of these names in quotation marks, within the length of a first object: whatever more of
// one that is too long came with one read does not count.
func Mentions(d *Decoder, names ...string) bool {
	start := d.unread()
	start = start[:min(len(start), d.lim.Header)]
	return slices.ContainsFunc(names, func(name string) bool { return bytes.Contains(start, []byte(`"`+name+`"`)) })
}

func (d *Decoder) unread() []byte {
	if d.mem == nil {
		return nil
	}
	return d.mem.buf[d.start:]
}

// First returns the first object of a message, of at most [Limits].Header bytes.
// Nothing may precede it, not even whitespace: the first byte of a message names
// its format. The error is [io.EOF] if the stream has ended.
func (d *Decoder) First() (Object, error) {
	return d.object(false, d.lim.Header)
}

// FirstAfter is like First on a stream of messages, where parts of the previous message
// may remain. It skips objects that have a member named left and none named first. It
// judges objects that are too long to be a first one by their beginning, without holding
// them in memory.
func (d *Decoder) FirstAfter(left string, first ...string) (Object, error) {
	if d.hint == 0 { // there is no previous message
		return d.First()
	}
	for skip := false; ; skip = true {
		o, err := d.object(skip, d.lim.Header)
		switch {
		case errors.Is(err, ErrTooLong) && Mentions(d, left) && !Mentions(d, first...):
			if d.err = d.passOver(); d.err != nil {
				return Object{}, d.err
			}
		case err != nil || !o.Has(left) || slices.ContainsFunc(first, o.Has):
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
	d.Memory().forget()
	poisoned(d.mem.buf[:d.start:d.start])
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
	if o, ok := d.mem.parseWhole(d.unread(), limit, d.lim); ok {
		d.hint = len(o.Raw())
		d.start += d.hint
		return o, nil
	}
	d.scan = scanner{}
	for {
		done, err := d.scan.run(d.unread())
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
		done, err := d.scan.run(d.unread())
		if err != nil {
			return err
		}
		if passed += d.scan.pos; passed > d.lim.Object {
			return tooLong(d.lim.Object)
		}
		rest := copy(d.unread(), d.unread()[d.scan.pos:])
		d.mem.buf, d.scan.pos = d.mem.buf[:d.start+rest], 0
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
		switch c := d.mem.buf[d.start]; {
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
	o, err := d.mem.Parse(d.mem.buf[d.start:end:end], lim)
	if err != nil {
		return Object{}, err
	}
	d.start = end
	d.hint = n
	return o, nil
}

// fill reads until data arrives, if fewer than limit bytes are buffered.
func (d *Decoder) fill(limit int) error {
	d.compact()
	return d.fillBehind(limit)
}

// fillBehind is fill without changing the last object returned.
func (d *Decoder) fillBehind(limit int) error {
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
		buf := d.mem.buf
		n, err := d.r.Read(buf[len(buf):cap(buf)])
		d.mem.buf = buf[:len(buf)+n]
		d.mem.filled = max(d.mem.filled, len(buf)+n)
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

// compact makes room in place of data returned before, if that is no less than what has
// to be copied.
func (d *Decoder) compact() {
	if rest := d.unread(); len(rest) <= d.start && d.rerr == nil {
		copy(d.mem.buf, rest)
		d.mem.buf, d.start = d.mem.buf[:len(rest)], 0
	}
}

// grow makes room for a read. A new buffer is doubled rather than made for the largest
// object allowed, so that a peer has to send as much as it makes the Decoder allocate.
func (d *Decoder) grow(limit int) error {
	if len(d.mem.buf) < cap(d.mem.buf) {
		return nil
	}
	rest := d.unread()
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
	d.mem.buf, d.start = append(make([]byte, 0, size), rest...), 0
	return nil
}

func tooLong(limit int) error { return fmt.Errorf("wire: byte %d: %w", limit, ErrTooLong) }
