package msl

import (
	"context"
	"io"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// Opening a chunk takes processor time, or two calls into a device of unknown delay. If
// more of a message is known to come, the next chunk is therefore read and its opening
// started while one is opened. No more than that is read ahead, and failures are not
// reported early: each is an error in its turn.

// A chunkSource returns the chunks of a message, verified and decrypted.
type chunkSource struct {
	ctx     context.Context // nil, or bounds the wait for a device
	in      *wire.Decoder   // nil when the message is over
	opener  Opener
	message *incoming       // the message whose memory it uses
	early   *earlyChunk     // the first chunk; nil once read
	reading context.Context // bounds a wait for memory

	current *chunkOpening // of the last chunk read, unless it was opened in its turn
	coming  *chunkOpening // of the following chunk, or nil
	idle    *chunkOpening // unused openings, a list
	most    int           // the largest of these chunks, in bytes
}

// A chunkOpening is a chunk that is opened in another goroutine, in memory of its own.
type chunkOpening struct {
	raw    []byte // backs sealed
	sealed sealedChunk
	err    error // in its form or its opening
	chunk  chunk // its data is in mem
	mem    wire.Memory
	done   chan struct{} // receives one value when the chunk is opened
	next   *chunkOpening // in the list of unused ones
}

// chunk returns the next chunk, which may have been opened before. Its data is in the
// source's memory until the next call.
func (s *chunkSource) chunk() (chunk, error) {
	if o := s.begun(); o != nil {
		return s.finish(o)
	}
	o, err := s.in.Next()
	if err == io.EOF || cutOff(err) {
		return chunk{}, ErrTruncated
	}
	if err != nil {
		return chunk{}, streamError(err, "Chunk")
	}
	c, opened := s.early.take()
	switch s.early = nil; {
	case opened:
		return c, nil
	case s.followed(o):
		return s.finish(s.start(o))
	}
	return s.open(o)
}

// open opens a chunk in its turn, in the memory of the decoder.
func (s *chunkSource) open(o wire.Object) (chunk, error) {
	sealed, err := readSealedChunk(o)
	if err != nil {
		return chunk{}, err
	}
	return s.persist(sealed, s.in.Memory())
}

// persist opens a chunk, retrying as long as a device is waited for.
func (s *chunkSource) persist(sealed sealedChunk, mem *wire.Memory) (c chunk, err error) {
	err = persist(s.ctx, func() error {
		c, err = sealed.open(mem, s.opener, nil)
		return err
	})
	return c, err
}

// memory is where the last chunk read is.
func (s *chunkSource) memory() *wire.Memory {
	if s.current != nil {
		return &s.current.mem
	}
	return s.in.Memory()
}

// followed reports whether another chunk is to be opened concurrently.
func (s *chunkSource) followed(o wire.Object) bool {
	return (len(o.Raw()) > small || waits(s.opener)) && s.in.Follows() && s.roomFor(o)
}

// roomFor reports whether there is memory for one more chunk.
func (s *chunkSource) roomFor(o wire.Object) bool {
	most := max(len(o.Raw()), s.most)
	if !s.message.account.holdFree(someChunks, most) {
		return false
	}
	s.most = most
	return true
}

// begun returns the chunk whose opening was started, if any, and frees the memory of the
// last one, whose data is used up.
func (s *chunkSource) begun() (o *chunkOpening) {
	if s.current != nil {
		s.current.next, s.idle = s.idle, s.current
	}
	o, s.current, s.coming = s.coming, nil, nil
	return o
}

func (s *chunkSource) start(object wire.Object) *chunkOpening {
	o := s.idle
	if o == nil {
		o = &chunkOpening{done: make(chan struct{}, 1)}
	}
	s.idle, o.next = o.next, nil
	if o.err = o.copy(object); o.err != nil {
		o.done <- struct{}{}
		return o
	}
	go func(opener Opener) {
		o.chunk, o.err = o.sealed.open(&o.mem, opener, nil)
		o.done <- struct{}{}
	}(s.opener)
	return o
}

// copy decodes the parts of a chunk out of the memory that is read into.
func (o *chunkOpening) copy(object wire.Object) error {
	f := wire.FieldsOf(object)
	o.raw = f.AppendBytes(o.raw[:0], "payload")
	n := len(o.raw)
	o.raw = f.AppendBytes(o.raw, "signature")
	o.sealed = sealedChunk{o.raw[:n:n], o.raw[n:]}
	return malformed(f, "payload chunk")
}

// finish waits for a chunk, and starts the next one if it arrives in the meantime. It
// retries after a failed device.
func (s *chunkSource) finish(o *chunkOpening) (chunk, error) {
	opening := func() bool { return len(o.done) == 0 }
	isChunk := func(object wire.Object) bool { return object.Has("payload") && s.roomFor(object) }
	if next, ok := s.in.Ahead(opening, isChunk); ok {
		s.coming = s.start(next)
	}
	s.current = o
	<-o.done
	if o.err != nil && passing(o.err) {
		return s.persist(o.sealed, &o.mem)
	}
	return o.chunk, o.err
}

// abandon waits for a started chunk and discards it: it uses keys that are about to be
// released.
func (s *chunkSource) abandon() {
	if s.coming != nil {
		<-s.coming.done
		s.coming = nil
	}
}

// settle abandons a started chunk, unless someone is still reading.
func (r *payloadReader) settle() {
	if r == nil || !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	r.abandon()
}
