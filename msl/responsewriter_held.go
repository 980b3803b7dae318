package msl

import (
	"errors"
	"slices"
)

// A peer may be half-duplex: data written to it while it is still sending its request
// fills the buffers in between, and then both sides wait forever. Most HTTP clients are
// half-duplex, and so is the reference stack in a peer-to-peer network. Their answers are
// held back until the request has been read: by the handler, or into memory if the answer
// is flushed or grows too long to hold.

// A writer of answers that implements halfDuplex reports whether its peer may not read
// until it has sent its whole request.
type halfDuplex interface{ HalfDuplex() bool }

// errUnread says that an answer has to wait for the rest of its request, and cannot.
var errUnread = errors.New("it cannot begin before the peer has sent its whole request: read that first, or raise Limits.Held")

// isHeld reports whether the answer has to wait for the rest of the request.
func (w *ResponseWriter) isHeld() bool {
	if w.gives.push || w.in.body == nil || w.in.body.done.Load() {
		return false
	}
	return w.network.halfDuplex()
}

// room is how many more bytes are kept before the answer begins.
func (w *ResponseWriter) room() int {
	size := flushSize
	if w.isHeld() {
		size = max(size, w.in.limits.Held)
	}
	return max(size-len(w.payload.buffer), 0)
}

// overflow handles an answer that no longer fits: it begins, or fails. Even a peer that
// shows no token may read while it sends.
func (w *ResponseWriter) overflow() error {
	if w.stillHeld() && !w.network.asksFirst() && w.failed == nil {
		w.failed = fail(ErrMSLCommsFailure, "answer", errUnread)
	}
	err := w.begin()
	if err == errUnread {
		w.failed = fail(ErrMSLCommsFailure, "answer", errUnread)
		return w.failed
	}
	return err
}

// stillHeld reads as much of the request ahead as is allowed, then returns isHeld.
func (w *ResponseWriter) stillHeld() bool {
	if w.isHeld() {
		w.in.body.readAhead(w.in.limits.Held)
	}
	return w.isHeld()
}

// readAhead keeps the rest of a message in memory, if it is no more than about size
// bytes.
func (r *payloadReader) readAhead(size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended() || r.err != nil || len(r.data) >= size {
		return
	}
	kept := slices.Clone(r.data) // the next chunk is read into the same memory
	for !r.ended() && r.err == nil && len(kept) < size {
		r.data = nil
		r.err = r.more()
		if err := r.message.account.hold(r.reading, aRequest, len(kept)+len(r.data)); err != nil && r.err == nil && !r.ended() {
			r.err = streamError(err, "Chunk")
		}
		kept = append(kept, r.data...)
	}
	r.data = kept
}

// ahead is readAhead for at most size bytes, or as many as may be held. It returns how
// many bytes are in memory, and whether they are the whole rest.
func (r *payloadReader) ahead(size int) (have int64, whole bool, err error) {
	r.readAhead(max(min(size, r.message.limits.Held), 1))
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.data)), r.ended(), r.err
}
