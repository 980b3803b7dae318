package main

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A call into a PKCS #11 module may never return, and nothing in this process can end
// it. So who has a time for something does not wait for what goes on after it: all
// that hears of the end of its context has returned by then.

// hungTime is for what hears of the end of its time to return.
const hungTime = time.Second

// errHung says that something did not.
var errHung = fmt.Errorf("%w: a call into it does not return; see whether the HSM or TPM is well", keystore.ErrUnavailable)

// unlessHung does something, and waits for it until ctx ended a second ago.
func unlessHung(ctx context.Context, do func() error) error {
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
	case <-time.After(hungTime):
		return errHung
	}
}

// waitForAnswer is Do, which is not waited for after the end of watch. An answer that
// comes later is closed.
func waitForAnswer(ctx, watch context.Context, c *msl.Client, req *msl.Request) (*msl.Response, error) {
	var abandoned atomic.Bool
	answer := make(chan *msl.Response, 1)
	discard := func() {
		select {
		case r := <-answer:
			r.Body.Close()
		default:
		}
	}
	err := unlessHung(watch, func() error {
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
	r.Body = &waitingBody{watch: watch, body: r.Body}
	return r, nil
}

// A waitingBody is read with keys of the store. It has a buffer of its own, since the
// caller's must not be written to after a Read returned.
type waitingBody struct {
	watch  context.Context
	body   io.ReadCloser
	buffer [64 << 10]byte
}

func (b *waitingBody) Read(p []byte) (int, error) {
	most, got := min(len(p), len(b.buffer)), make(chan int, 1)
	err := unlessHung(b.watch, func() error {
		n, err := b.body.Read(b.buffer[:most])
		got <- n
		return err
	})
	if err == errHung {
		return 0, err
	}
	return copy(p, b.buffer[:<-got]), err
}

func (b *waitingBody) Close() error { return unlessHung(b.watch, b.body.Close) }
