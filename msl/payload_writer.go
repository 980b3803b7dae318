package msl

import (
	"context"
	"io"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// flushSize is how much data this package's writer puts into one chunk.
const flushSize = 64 << 10

// A payloadWriter turns the application's data into chunks.
type payloadWriter struct {
	ctx         context.Context // nil, or bounds the wait for a device
	out         io.Writer
	head        *draft // to be sent before the first chunk, or nil
	protector   Protector
	messageID   int64
	compression string

	sequence int64 // of the last chunk
	buffer   []byte
	ahead    []*sealing // chunks that were started and not sent, in order
	idle     []*sealing
	err      error
}

// Write buffers p and sends full chunks.
func (w *payloadWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 && w.err == nil {
		room := min(flushSize-len(w.buffer), len(p))
		w.buffer = append(w.buffer, p[:room]...)
		p = p[room:]
		n += room
		if len(w.buffer) == flushSize {
			w.err = w.sendFull()
		}
	}
	return n, w.err
}

// sendFull sends the buffer. Until something is sent, an error can be answered with an
// error message, so the first chunk of an answer is not put off.
func (w *payloadWriter) sendFull() error {
	if w.head != nil {
		return w.send(false)
	}
	s, err := w.start(w.buffer, false)
	if err == nil {
		w.buffer, s.data = s.data[:0], w.buffer
	}
	return err
}

// lend is Write, without a copy, for data that does not change until Close.
func (w *payloadWriter) lend(p []byte) error {
	for ; len(p) >= flushSize && w.err == nil; p = p[flushSize:] {
		_, w.err = w.start(p[:flushSize], false)
	}
	w.buffer = p[:len(p):len(p)]
	return w.err
}

// Flush sends the buffered data, if any, and makes a buffering transport send it too.
func (w *payloadWriter) Flush() error {
	if w.err == nil && len(w.buffer) > 0 {
		w.err = w.send(false)
	}
	if w.err == nil {
		w.err = w.sendAhead(0)
	}
	if w.err == nil {
		w.err = w.sendHead()
	}
	if f, ok := w.out.(interface{ Flush() error }); ok && w.err == nil {
		w.err = f.Flush()
	}
	return w.err
}

// Close sends the last chunk.
func (w *payloadWriter) Close() error {
	if w.err == nil {
		w.err = w.send(true)
	}
	return w.err
}

// sendHead sends the header, unless it was sent.
func (w *payloadWriter) sendHead() error {
	if w.head == nil {
		return nil
	}
	head, err := w.head.wait(w.ctx)
	if w.err = err; err != nil {
		return err
	}
	w.head = nil
	if _, w.err = head.head.send(w.out); w.err == nil && head.told != nil {
		head.told()
	}
	return w.err
}

// send makes a chunk of the buffer, and sends it after those that were started.
func (w *payloadWriter) send(end bool) error {
	if len(w.ahead) > 0 {
		if _, err := w.start(w.buffer, end); err != nil {
			return err
		}
		w.buffer = nil
		return w.sendAhead(0)
	}
	w.sequence = next(w.sequence)
	mem := wire.NewMemory()
	defer mem.Free()
	object, err := w.seal(mem, chunk{sequence: w.sequence, messageID: w.messageID, end: end, data: w.buffer}, w.head)
	if w.buffer = w.buffer[:0]; end {
		w.buffer = nil
	}
	if err != nil {
		return err
	}
	defer object.Free()
	if err := w.sendHead(); err != nil {
		return err
	}
	_, err = w.out.Write(object.Encoded())
	return err
}

// seal compresses and protects a chunk, together with head if that is given and shares
// the call. The caller must free the object returned.
func (w *payloadWriter) seal(mem *wire.Memory, c chunk, head *draft) (object *wire.Encoder, err error) {
	if c.data, c.compression, err = compress(w.compression, c.data); err != nil {
		return nil, err
	}
	inside := wire.Scratch(128 + len(c.data)*4/3)
	defer inside.Free()
	c.encode(inside)
	payload, signature, err := w.protect(mem, inside.Encoded(), head)
	if err != nil {
		return nil, err
	}
	e := wire.Scratch(64 + (len(payload)+len(signature))*4/3)
	e.Begin()
	e.Bytes("payload", payload)
	e.Bytes("signature", signature)
	e.End()
	return e, nil
}

func (w *payloadWriter) protect(mem *wire.Memory, inside []byte, head *draft) (payload, signature []byte, err error) {
	err = persist(w.ctx, func() error {
		payload, signature, err = head.sealWith(mem, w.protector, inside)
		return err
	})
	return payload, signature, err
}
