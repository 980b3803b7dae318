package agent

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A body is the body of a request. Up to 1 MiB of it is kept, to be sent again if the
// server asks for it.
//
// Most programs write a whole request before they read. If the answer begins earlier,
// the rest of the body is read ahead into memory. Otherwise the program would wait for
// the Handler to read the body, and the Handler for the program to read its answer. No
// more than most bytes are read ahead, so a program that reads while it sends is slowed
// down to what the network takes.
type body struct {
	r     io.Reader
	form  io.Reader // in which it is sent; nil means unchanged
	most  int64     // bytes of data
	clock *clock

	once sync.Once
	kept func() (io.ReadCloser, error)

	mu      sync.Mutex
	moved   sync.Cond // signals a change of a field below
	ahead   bool      // pump reads ahead into data
	direct  bool      // a Read is reading from r
	waiting bool      // for the program
	whole   bool      // read to its end
	stopped bool      // no more of it is wanted
	err     error
	data    []byte
}

func newBody(r io.Reader, whole bool, most int64, c *clock) *body {
	b := &body{r: r, whole: whole, most: most, clock: c}
	b.moved.L = &b.mu
	return b
}

func (b *body) open() (io.ReadCloser, error) {
	b.once.Do(func() {
		if b.form == nil {
			b.form = b
		}
		b.kept = msl.ReaderBody(b.form, 0)
	})
	r, err := b.kept()
	if err != nil {
		err = &StatusError{http.StatusServiceUnavailable, soon, err}
	}
	return r, err
}

func (b *body) Read(p []byte) (int, error) {
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
	b.moved.Broadcast()
	return n, nil
}

// read reads from the program, unlocked.
func (b *body) read(p []byte) (int, error) {
	b.mu.Unlock()
	n, err := b.r.Read(p)
	b.mu.Lock()
	b.clock.moved()
	switch {
	case err == io.EOF:
		b.whole = true
	case err != nil:
		b.err = err
	}
	return n, err
}

// readAhead starts reading the rest of the body into memory.
func (b *body) readAhead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ahead {
		return
	}
	b.ahead = true
	go b.pump()
}

// pump reads ahead until the body or the connection ends.
func (b *body) pump() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.direct {
		b.moved.Wait()
	}
	for piece := make([]byte, 32<<10); !b.whole && b.err == nil && !b.stopped; {
		if int64(len(b.data)) >= b.most {
			b.moved.Wait()
			continue
		}
		n, _ := b.read(piece)
		b.data = append(b.data, piece[:n]...)
		b.moved.Broadcast()
	}
}

// stop ends the reading ahead.
func (b *body) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	b.moved.Broadcast()
}

// full reports whether the reading ahead has to wait.
func (b *body) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ahead && !b.whole && int64(len(b.data)) >= b.most
}

// endsWith makes the connection end with the response, unless the body was read to its
// end: the rest of the body must not be mistaken for another request.
func (b *body) endsWith(h http.Header) {
	if !b.ended() {
		h.Set("Connection", "close")
	}
}

// end reads and discards the rest of the body. If the body does not end, its connection
// is cut off.
func (b *body) end(rest io.Reader) {
	if b.ended() {
		return
	}
	if _, err := io.Copy(io.Discard, rest); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (b *body) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whole
}

func (b *body) waits() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting
}

// A BodyError says that the body of a request is longer than the [Handler] permits.
type BodyError struct{ Limit int64 } // bytes

// Error gives the limit.
func (e *BodyError) Error() string { return fmt.Sprintf("the body has more than %d bytes", e.Limit) }

// An AheadError says that a program did not read its answer before it had sent its
// request, and that the request was longer than the [Handler] reads ahead.
type AheadError struct{ Limit int64 } // bytes

// Error gives the limit.
func (e *AheadError) Error() string {
	return fmt.Sprintf("the program does not read its answer while it sends, and more than %d bytes would have to be kept", e.Limit)
}

// failure returns why the body could not be read to its end, or nil.
func (b *body) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var long *http.MaxBytesError
	switch {
	case b.err == nil:
		return nil
	case errors.As(b.err, &long):
		return &StatusError{Status: http.StatusRequestEntityTooLarge, Err: &BodyError{long.Limit}}
	}
	return &StatusError{Status: http.StatusBadRequest, Err: fmt.Errorf("the body broke off: %w", b.err)}
}
