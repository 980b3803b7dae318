package msl

import (
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// earlySize is up to how many bytes a chunk may have to be opened early: as much as is
// not counted as memory.
const earlySize = small

// An earlyChunk is the first chunk of a message, opened beside the header where a device
// is waited for: verified while the header is verified, and decrypted while that is. It
// tells nobody of a failure. What failed is done again in its turn, so that the errors
// of a message come in the protocol's order. A nil earlyChunk opens nothing.
//
// A chunk that shares a call with the header has no channels: it is opened, or not, when the
// header is.
type earlyChunk struct {
	verified chan bool     // whether the header is; sent once, or closed
	done     chan struct{} // closed when the chunk is opened, or that failed
	sealed   sealedChunk
	mem      wire.Memory // of the chunk when it is opened
	chunk    chunk
	err      error
}

// openEarly begins to open the first chunk if all of it has arrived.
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

// waited reports whether the chunk is opened beside the header, in calls of its own.
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

// goOn says whether the header was verified: the chunk of a header that was not is not
// decrypted.
func (e *earlyChunk) goOn(verified bool) {
	if e.waited() {
		e.verified <- verified
	}
}

// giveUp ends an opening that waits for a header which nobody verifies any more.
func (e *earlyChunk) giveUp() {
	select {
	case e.verified <- false:
	default: // it was told
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
