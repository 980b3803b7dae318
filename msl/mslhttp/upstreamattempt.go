package mslhttp

import (
	"errors"
	"io"
	"sync"
)

// A messageBody is the data of a message on its way to the service. It remembers why
// the message could not be read, and ends when the gateway is done with it: an HTTP
// client may go on reading after the response, but a message must not be read after
// its handler has returned.
type messageBody struct {
	mu     sync.Mutex
	r      io.Reader
	err    error
	closed bool
}

func (b *messageBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, io.ErrClosedPipe
	}
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// Close keeps the client from reading on.
func (b *messageBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// failure returns why the message could not be read to its end, or nil.
func (b *messageBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
