package msl

import (
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// earlySize is the largest chunk, in bytes, that is opened early: what is not counted as
// memory.
const earlySize = small

// An earlyChunk is the first chunk of a message, opened concurrently with the header if
// that means waiting for a device: verified while the header is verified, and decrypted
// while it is decrypted. It reports no failure. A failed step is repeated in its turn, so
// that the errors of a message come in the protocol's order. A nil earlyChunk opens
// nothing.
//
// A chunk that shares a call with the header has no channels: it is opened, or not,
// together with the header.
type earlyChunk struct {
	verified chan bool     // whether the header is verified; sent once, or closed
	done     chan struct{} // closed when the chunk was opened, or could not be
	sealed   sealedChunk
	mem      wire.Memory // of the chunk when it is opened
	chunk    chunk
	err      error
}

// openEarly starts opening the first chunk if all of it has arrived.
func openEarly(decoder *wire.Decoder, opener Opener) *earlyChunk {
	slow := waits(opener)
	if !slow && !shares(opener) {
		return nil
	}
	o, arrived := decoder.Peek(earlySize)
	if !arrived || !o.Has("payload") {
		return nil
	}
	sealed, err := readSealedChunk(o)
	if err != nil {
		return nil
	}
	e := &earlyChunk{sealed: sealed, err: errEnded}
	if slow {
		e.verified, e.done = make(chan bool, 1), make(chan struct{})
		go func() {
			defer close(e.done)
			e.chunk, e.err = sealed.open(&e.mem, opener, func() bool { return <-e.verified })
		}()
	}
	return e
}

// waited reports whether the chunk is opened concurrently with the header, in calls of
// its own.
func (e *earlyChunk) waited() bool { return e != nil && e.done != nil }

// opening returns what shares a call with the header, if the chunk does.
func (e *earlyChunk) opening() (o keystore.Opening, ok bool) {
	if e == nil || e.waited() {
		return o, false
	}
	return opening(&e.mem, e.sealed.payload, e.sealed.signature)
}

// finish takes the inside of a chunk that was opened with the header.
func (e *earlyChunk) finish(plaintext []byte) {
	e.mem.Content = plaintext
	e.chunk, e.err = readChunk(&e.mem, plaintext)
}

// goOn reports whether the header was verified; otherwise the chunk is not decrypted.
func (e *earlyChunk) goOn(verified bool) {
	if e.waited() {
		e.verified <- verified
	}
}

// giveUp ends an opening that waits for a header which will not be verified.
func (e *earlyChunk) giveUp() {
	select {
	case e.verified <- false:
	default: // already decided
	}
}

// take returns the chunk, if it was opened.
func (e *earlyChunk) take() (c chunk, opened bool) {
	if e == nil {
		return chunk{}, false
	}
	if e.waited() {
		<-e.done
	}
	return e.chunk, e.err == nil
}
