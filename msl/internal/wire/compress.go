package wire

import (
	"fmt"
	"io"
	"math"
)

// The names of the compression algorithms on the wire, in order of preference.
const (
	GZIP = "GZIP" // RFC 1952
	LZW  = "LZW"  // MSL's own format, with codes of growing width
)

// Compress compresses data. The caller must check whether the result is shorter.
func Compress(algo string, data []byte) ([]byte, error) {
	switch algo {
	case GZIP:
		return compressGZIP(data)
	case LZW:
		return compressLZW(data), nil
	}
	return nil, fmt.Errorf("wire: %w", ErrUnknownAlgorithm)
}

// An Inflation limits the size of decompressed data.
type Inflation struct {
	Ratio int                  // maximum size as a multiple of the compressed size; below one means one
	Most  int                  // bytes; zero means no limit except the ratio
	Hold  func(size int) error // called before that many bytes are used; nil permits all
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

// An output is the result of decompression.
type output struct {
	buf   []byte
	limit int
	long  error // the error if it became longer
	hold  func(int) error
	table int // further bytes in use
}

// room makes room for n more bytes, or returns an error if that would be too many.
func (o *output) room(n int) error {
	if n > o.limit-len(o.buf) {
		return o.long
	}
	if n <= cap(o.buf)-len(o.buf) {
		return nil
	}
	return o.grow(min(o.limit, max(len(o.buf)+n, 2*cap(o.buf))))
}

// grow makes room for a total of size bytes.
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

// readFrom reads to the end. Only a read beyond the limit shows whether the data is
// longer.
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
