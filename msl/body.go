package msl

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// BytesBody returns a request body that is the bytes b.
func BytesBody(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		return &bytesBody{Reader: bytes.NewReader(b), all: b}, nil
	}
}

// A bytesBody is data already in memory: no read of it blocks.
type bytesBody struct {
	*bytes.Reader
	all []byte
}

func (*bytesBody) Close() error { return nil }

// maxDefaultBody bounds how much of an unrepeatable body is kept for another try.
const maxDefaultBody = 1 << 20

// ReaderBody returns a request body read from r, which can be read only once. Its first
// max bytes (0 means 1 MiB) are kept in memory so that the message can be sent again; a
// longer message is not sent again.
func ReaderBody(r io.Reader, max int) func() (io.ReadCloser, error) {
	if max == 0 {
		max = maxDefaultBody
	}
	kept := &keptBody{r: r, max: max, turn: make(chan struct{}, 1)}
	return kept.open
}

// A keptBody remembers what was read from r, up to a bound.
type keptBody struct {
	max  int
	lost atomic.Bool   // more was read than can be kept
	turn chan struct{} // held by the reader of r, which may take long

	mu   sync.Mutex
	r    io.Reader
	kept []byte
	read int // read from r so far
}

var errNotKept = errors.New("msl: the request must be sent again, but its body cannot be read twice and is too long to keep")

func (k *keptBody) open() (io.ReadCloser, error) {
	if k.lost.Load() {
		return nil, errNotKept
	}
	return io.NopCloser(&keptReader{keptBody: k}), nil
}

// A keptReader reads a keptBody from its beginning. A reader from an earlier try may
// still be waiting for r; what it reads is kept for the others.
type keptReader struct {
	*keptBody
	at int
}

func (r *keptReader) Read(p []byte) (int, error) {
	if n, err := r.again(p); n > 0 || err != nil || len(p) == 0 {
		return n, err
	}
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if n, err := r.again(p); n > 0 || err != nil { // arrived while another reader had the turn
		return n, err
	}
	n, err := r.r.Read(p)
	r.keep(p[:n])
	return n, err
}

// again reads what is kept, and returns 0 if there is no more of it.
func (r *keptReader) again(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at < r.read && r.at >= len(r.kept) {
		return 0, errNotKept
	}
	n := copy(p, r.kept[min(r.at, len(r.kept)):])
	r.at += n
	return n, nil
}

func (r *keptReader) keep(p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read += len(p)
	r.at = r.read
	if r.read > r.max {
		r.lost.Store(true)
		r.kept = nil
	} else {
		r.kept = append(r.kept, p...)
	}
}
