package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A programBody is the body of a request. It is kept up to 1 MiB, to be sent again
// where the server asks for that.
//
// Most programs write a whole request before they read. Where the answer begins
// earlier, the rest of the body is read ahead into memory: otherwise the program
// would wait for us to read it, and we for the program to read its answer.
type programBody struct {
	r io.Reader // of no more than client.agent.body

	once sync.Once
	kept func() (io.ReadCloser, error)

	mu      sync.Mutex
	moved   sync.Cond // something below changed
	ahead   bool      // is read ahead, and data is what was
	direct  bool      // a Read is reading from r
	waiting bool      // for the program
	whole   bool      // read to its end
	err     error
	data    []byte
}

func newProgramBody(r io.Reader, whole bool) *programBody {
	b := &programBody{r: r, whole: whole}
	b.moved.L = &b.mu
	return b
}

func (b *programBody) open() (io.ReadCloser, error) {
	b.once.Do(func() { b.kept = msl.ReaderBody(b, 0) })
	r, err := b.kept()
	if err != nil {
		err = statusError{err, http.StatusServiceUnavailable, soon}
	}
	return r, err
}

func (b *programBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = true
	defer func() { b.waiting = false }()
	if !b.ahead {
		b.direct = true
		n, err := b.read(p)
		b.direct = false
		b.moved.Broadcast()
		return n, err
	}
	for len(b.data) == 0 && !b.whole && b.err == nil {
		b.moved.Wait()
	}
	if len(b.data) == 0 && b.whole {
		return 0, io.EOF
	}
	n := copy(p, b.data)
	if b.data = b.data[n:]; n == 0 {
		return 0, b.err
	}
	return n, nil
}

// read reads from the program, without the lock meanwhile.
func (b *programBody) read(p []byte) (int, error) {
	b.mu.Unlock()
	n, err := b.r.Read(p)
	b.mu.Lock()
	switch {
	case err == io.EOF:
		b.whole = true
	case err != nil:
		b.err = err
	}
	return n, err
}

// readAhead takes what is left into memory from now on.
func (b *programBody) readAhead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ahead {
		return
	}
	b.ahead = true
	go b.pump()
}

// pump reads ahead. It ends with the body, or the connection.
func (b *programBody) pump() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.direct {
		b.moved.Wait()
	}
	for piece := make([]byte, 32<<10); !b.whole && b.err == nil; {
		n, _ := b.read(piece)
		b.data = append(b.data, piece[:n]...)
		b.moved.Broadcast()
	}
}

// endsWith makes the connection end with the response, unless the body was read to
// its end: what is left of it must not be taken for another request.
func (b *programBody) endsWith(h http.Header) {
	if !b.ended() {
		h.Set("Connection", "close")
	}
}

// end reads what is left of the body, of which nothing is wanted any more. The
// connection of one that does not end is cut off.
func (b *programBody) end(rest io.Reader) {
	if b.ended() {
		return
	}
	if _, err := io.Copy(io.Discard, rest); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (b *programBody) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whole
}

func (b *programBody) waits() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting
}

// failure is why the body could not be read to its end, or nil.
func (b *programBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var long *http.MaxBytesError
	switch {
	case b.err == nil:
		return nil
	case errors.As(b.err, &long):
		return statusError{fmt.Errorf("the body has more than %d bytes, which client.agent.body permits", long.Limit), http.StatusRequestEntityTooLarge, 0}
	}
	return statusError{fmt.Errorf("the body broke off: %w", b.err), http.StatusBadRequest, 0}
}
