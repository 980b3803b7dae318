package wire

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"sync"
)

// The names of the compression algorithms on the wire, in order of preference.
const (
	GZIP = "GZIP" // RFC 1952
	LZW  = "LZW"  // MSL's own format, with codes of growing width
)

// Compress compresses data. Whether the result is worth using, that is
// shorter, is for the caller to see.
func Compress(algo string, data []byte) ([]byte, error) {
	switch algo {
	case GZIP:
		return compressGZIP(data)
	case LZW:
		return compressLZW(data), nil
	}
	return nil, fmt.Errorf("wire: %w", ErrUnknownAlgorithm)
}

// An Inflation bounds what compressed data may become.
type Inflation struct {
	Ratio int                  // times its own length; below one is one
	Most  int                  // bytes; zero is no other bound than the ratio
	Hold  func(size int) error // is asked before so many bytes are in use; nil permits all
}

// Decompress decompresses data. The error is [ErrLimit] if the output is longer than
// the ratio permits, and [ErrTooLong] if it is longer than Most. Memory is allocated
// as output appears.
func Decompress(algo string, data []byte, bounds Inflation) ([]byte, error) {
	out := output{limit: outputLimit(len(data), bounds.Ratio), hold: bounds.Hold, long: ErrLimit}
	if bounds.Most > 0 && bounds.Most < out.limit {
		out.limit, out.long = bounds.Most, ErrTooLong
	}
	var err error
	switch algo {
	case GZIP:
		err = decompressGZIP(data, &out)
	case LZW:
		err = decompressLZW(data, &out)
	default:
		err = ErrUnknownAlgorithm
	}
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	return out.buf, nil
}

func outputLimit(size, maxRatio int) int {
	maxRatio = max(maxRatio, 1)
	if size > math.MaxInt32/maxRatio {
		return math.MaxInt32
	}
	return size * maxRatio
}

// An output is what data becomes.
type output struct {
	buf   []byte
	limit int
	long  error // what it is to be longer
	hold  func(int) error
	table int // bytes in use besides
}

// room makes room for n more bytes, or says that they would be too many.
func (o *output) room(n int) error {
	if n > o.limit-len(o.buf) {
		return o.long
	}
	if n <= cap(o.buf)-len(o.buf) {
		return nil
	}
	return o.grow(min(o.limit, max(len(o.buf)+n, 2*cap(o.buf))))
}

// grow has room for so many bytes in all.
func (o *output) grow(size int) error {
	if err := o.holds(size); err != nil {
		return err
	}
	o.buf = append(make([]byte, 0, size), o.buf...)
	return nil
}

func (o *output) holds(size int) error {
	if o.hold == nil {
		return nil
	}
	return o.hold(size + o.table)
}

// gzipWriters and gzipReaders hold the state of the standard library's
// implementation, up to a megabyte, which costs more to set up than a chunk
// costs to compress. The level is the default one: for chunks of a kilobyte
// the fastest is hardly faster, and larger.
var (
	gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
)

func compressGZIP(data []byte) ([]byte, error) {
	w := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(w)
	var out bytes.Buffer
	w.Reset(&out)
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("wire: gzip: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("wire: gzip: %w", err)
	}
	w.Reset(io.Discard) // the pool must not keep the output alive
	return out.Bytes(), nil
}

// decompressGZIP accepts one or more members (RFC 1952, section 2.2) and
// nothing after them.
func decompressGZIP(data []byte, out *output) error {
	r := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(r)
	src := bytes.NewReader(data)
	defer src.Reset(nil) // the pool must not keep the input alive
	if err := r.Reset(src); err != nil {
		return ErrCompression
	}
	if err := out.grow(min(out.limit, max(4*len(data), 512))); err != nil {
		return err
	}
	return out.readFrom(r)
}

// readFrom reads to the end. That there is no more than may be shows only in a read
// beyond it.
func (o *output) readFrom(r io.Reader) error {
	var beyond [1]byte
	for {
		full := len(o.buf) == o.limit
		into := beyond[:]
		if !full {
			if err := o.room(1); err != nil {
				return err
			}
			into = o.buf[len(o.buf):cap(o.buf)]
		}
		n, err := r.Read(into)
		switch {
		case full && n > 0:
			return o.long
		case err != nil && err != io.EOF:
			return ErrCompression
		}
		o.buf = o.buf[:len(o.buf)+n]
		if err == io.EOF {
			return nil
		}
	}
}
