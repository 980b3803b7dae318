package msl

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
)

// An outgoing is a message that is ready to be written.
type outgoing struct {
	us        identification
	head      *sealedHeader
	tell      func() // called once the head is sent, or nil
	handshake bool
	lone      bool        // has no payload, yet is not a handshake
	waits     bool        // the peer has to answer, even if the application needs no answer
	flush     bool        // after each read of the body
	taken     atomic.Bool // written or abandoned
	payload   payloadWriter
	keys      *SessionKeys // used by the payload, or nil
	body      func() (io.ReadCloser, error)
}

func (o *outgoing) write(ctx context.Context, w io.Writer) error {
	if !o.taken.CompareAndSwap(false, true) {
		return errors.New("msl: the exchange ended before its message was written")
	}
	defer o.free()
	defer o.payload.abandon() // the answer may arrive, and the exchange end, during the write
	if err := o.writeHead(w); err != nil || o.handshake || o.lone {
		return err
	}
	o.payload.out = w
	if o.flush { // the peer may be the first to speak
		if err := o.payload.Flush(); err != nil {
			return err
		}
	}
	if o.body != nil {
		if err := o.copyBody(ctx); err != nil {
			return err
		}
	}
	return o.payload.Close()
}

func (o *outgoing) writeHead(w io.Writer) error {
	_, err := o.head.send(w)
	if err == nil && o.tell != nil {
		o.tell()
	}
	return err
}

// abandon frees what the message holds, unless it was or is being written.
func (o *outgoing) abandon() {
	if o.taken.CompareAndSwap(false, true) {
		o.free()
	}
}

func (o *outgoing) free() {
	if o.keys != nil {
		o.keys.Release()
	}
	o.us.release()
}

// copyBody sends the body. When ctx ends, it truncates the message and closes the body,
// since reading that could block forever.
func (o *outgoing) copyBody(ctx context.Context) error {
	body, err := o.body()
	if err != nil {
		return err
	}
	if known, ok := body.(*bytesBody); ok && !o.flush {
		return errors.Join(o.payload.lend(known.all), context.Cause(ctx))
	}
	stop := context.AfterFunc(ctx, func() { body.Close() })
	if o.flush {
		_, err = io.CopyBuffer(flushing{&o.payload}, body, make([]byte, flushSize))
	} else {
		_, err = io.Copy(&o.payload, body)
	}
	if !stop() {
		return errors.Join(context.Cause(ctx), err)
	}
	return errors.Join(err, body.Close())
}

// A flushing payload sends everything immediately.
type flushing struct{ *payloadWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.payloadWriter.Write(p)
	return n, errors.Join(err, f.Flush())
}
