package wire

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// gzipWriters and gzipReaders hold the state of the library, up to a megabyte, which costs
// more to set up than a chunk costs to compress. Level 7 compresses like zlib's default in
// less time, most of which is setup. For short data, level 6 avoids that and compresses as
// well, except that it stores data without frequent bytes, such as Base64 or hexadecimal
// digits, uncompressed.
var (
	gzipWriters      = writersOf(7)
	gzipShortWriters = writersOf(6)
	gzipReaders      = &sync.Pool{New: func() any { return new(gzip.Reader) }}
)

const (
	maxShort  = 1 << 10 // largest size of short data
	leastGain = 128     // smallest size that level 7 may shorten where level 6 did not
)

func writersOf(level int) *sync.Pool {
	return &sync.Pool{New: func() any {
		w, _ := gzip.NewWriterLevel(io.Discard, level) // fails only for levels that do not exist
		return &gzipWriter{Writer: w}
	}}
}

// A gzipWriter compresses to a buffer of its own, so that one reset of its large state
// is enough for each chunk.
type gzipWriter struct {
	*gzip.Writer
	out appended
}

// appended is what was written to it.
type appended []byte

func (a *appended) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

func compressGZIP(data []byte) ([]byte, error) {
	if len(data) <= maxShort {
		short, err := compressBy(gzipShortWriters, data)
		if err != nil || len(short) < len(data) || len(data) < leastGain {
			return short, err
		}
	}
	return compressBy(gzipWriters, data)
}

func compressBy(pool *sync.Pool, data []byte) ([]byte, error) {
	w := pool.Get().(*gzipWriter)
	defer pool.Put(w)
	defer func() { w.out = nil }() // the pool must not keep the output alive
	w.Reset(&w.out)
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("wire: gzip: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("wire: gzip: %w", err)
	}
	return w.out, nil
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
