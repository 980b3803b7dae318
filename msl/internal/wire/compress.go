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

// Decompress decompresses data. The output may not be longer than maxRatio
// times the input, with a ratio below one taken as one, or the error is
// [ErrLimit]. Memory is allocated as output appears.
func Decompress(algo string, data []byte, maxRatio int) ([]byte, error) {
	limit := outputLimit(len(data), maxRatio)
	var out []byte
	var err error
	switch algo {
	case GZIP:
		out, err = decompressGZIP(data, limit)
	case LZW:
		out, err = decompressLZW(data, limit)
	default:
		err = ErrUnknownAlgorithm
	}
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	return out, nil
}

func outputLimit(size, maxRatio int) int {
	maxRatio = max(maxRatio, 1)
	if size > math.MaxInt/maxRatio {
		return math.MaxInt
	}
	return size * maxRatio
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
func decompressGZIP(data []byte, limit int) ([]byte, error) {
	r := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(r)
	src := bytes.NewReader(data)
	defer src.Reset(nil) // the pool must not keep the input alive
	if err := r.Reset(src); err != nil {
		return nil, ErrCompression
	}
	return readLimited(r, limit, 4*len(data))
}

func readLimited(r io.Reader, limit, sizeHint int) ([]byte, error) {
	out := make([]byte, 0, min(limit, max(sizeHint, 512)))
	for {
		if len(out) == cap(out) {
			out = append(out, 0)[:len(out)]
		}
		n, err := r.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		if len(out) > limit {
			return nil, ErrLimit
		}
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, ErrCompression
		}
	}
}
