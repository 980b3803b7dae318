package msl

import (
	"errors"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// keep leaves the memory to another message, except for unread data.
func (r *payloadReader) keep() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.in != nil {
		r.in.Memory().Content = nil
	}
	if r.done.Load() {
		r.in = nil
	}
}

// discard reads the rest of a message that is no longer wanted. An application may have
// left another goroutine reading: it gets nothing more, and does not take what it got for
// the whole message.
func (r *payloadReader) discard() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended() && len(r.data) == 0 {
		return nil
	}
	for r.data = nil; !r.ended(); r.data = nil {
		if r.err == nil {
			r.err = r.more()
		}
		if r.err != nil {
			return r.err
		}
	}
	r.err = errEnded
	return nil
}

// leave ends the reading of a message, and returns what it was read with. A later read
// fails unless all data was read.
func (r *payloadReader) leave() (in *wire.Decoder) {
	r.abandon()
	in, r.in = r.in, nil
	if !r.ended() || len(r.data) > 0 {
		r.err, r.data, r.packed = errEnded, nil, chunk{}
	}
	return in
}

// over ends the reading of a message whose memory goes to the next one.
func (r *payloadReader) over() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave()
}

// free ends the reading of a message and frees its memory, unless someone is still
// reading.
func (r *payloadReader) free() {
	if !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	if in := r.leave(); in != nil {
		in.Free()
	}
}

// failure returns why the message could not be read, such as [ErrTruncated] if it ended before
// its last chunk, or nil.
func (r *payloadReader) failure() error {
	if r == nil || !r.mu.TryLock() { // someone is still reading it
		return nil
	}
	defer r.mu.Unlock()
	return r.err
}

// errShut says that a message was read after its answer was complete.
var errShut = errors.New("msl: the message was answered, and its data can no longer be read")

// shut ends the reading of a message on a persistent connection. An application may have
// left another goroutine reading, such as a request to a service that was answered early;
// it must not read part of the next message. shut waits for a read under way, which ends
// with the next chunk or with the connection.
func (r *payloadReader) shut() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.abandon()
	if r.err == nil && !r.ended() {
		r.err = errShut
	}
}
