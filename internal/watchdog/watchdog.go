// Package watchdog limits calls to a device that may hang. A call into a PKCS #11 module
// may never return, and nothing in this process can end it. A caller with a deadline
// therefore does not wait for it: code that honors its context gets one second after the
// end of the context to return, and a call that has not returned by then is abandoned.
package watchdog

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// grace is how long a call may still take to return after its context ends.
const grace = time.Second

// ErrHung means that a call did not return. It is a [keystore.ErrUnavailable].
var ErrHung = fmt.Errorf("%w: a call into it does not return; check the HSM or TPM", keystore.ErrUnavailable)

// Run calls do and returns its error, or ErrHung one second after ctx ends. In that case
// do is still running, and must not touch anything that the caller continues to use.
func Run(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return ErrHung
	}
}

// A Requester sends a request and returns its answer: [msl.Client].
type Requester interface {
	Do(ctx context.Context, req *msl.Request) (*msl.Response, error)
}

// Do is c.Do(ctx, req) under [Run] with the context watch, which also covers reading
// and closing the response body. A response that arrives after ErrHung is closed.
func Do(ctx, watch context.Context, c Requester, req *msl.Request) (*msl.Response, error) {
	var abandoned atomic.Bool
	answer := make(chan *msl.Response, 1)
	discard := func() {
		select {
		case r := <-answer:
			r.Body.Close()
		default:
		}
	}
	err := Run(watch, func() error {
		r, err := c.Do(ctx, req)
		if err != nil {
			return err
		}
		if answer <- r; abandoned.Load() {
			discard()
		}
		return nil
	})
	if err != nil {
		abandoned.Store(true)
		discard()
		return nil, err
	}
	r := <-answer
	r.Body = &watchedBody{watch: watch, turn: make(chan struct{}, 1), body: r.Body}
	return r, nil
}

// A watchedBody is read with keys of the store. It has its own buffer, since the
// caller's must not be written to after Read has returned.
type watchedBody struct {
	watch  context.Context
	turn   chan struct{} // holds an element during a call to body: a Close may follow a Read that hangs
	body   io.ReadCloser
	buffer [64 << 10]byte
}

func (b *watchedBody) Read(p []byte) (int, error) {
	most, got := min(len(p), len(b.buffer)), make(chan int, 1)
	err := Run(b.watch, func() error {
		b.turn <- struct{}{}
		defer func() { <-b.turn }()
		n, err := b.body.Read(b.buffer[:most])
		got <- n
		return err
	})
	if err == ErrHung {
		return 0, err
	}
	return copy(p, b.buffer[:<-got]), err
}

func (b *watchedBody) Close() error {
	return Run(b.watch, func() error {
		b.turn <- struct{}{}
		defer func() { <-b.turn }()
		return b.body.Close()
	})
}
