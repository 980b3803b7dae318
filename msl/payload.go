package msl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// ErrTruncated says that a message ended without its last payload chunk, so the data may
// be incomplete. It is an [io.ErrUnexpectedEOF].
var ErrTruncated = fmt.Errorf("msl: message was cut off before its end: %w", io.ErrUnexpectedEOF)

// A payloadReader gives the application the data of a message chunk by chunk; each chunk
// is verified, decrypted and in sequence before any byte of it is returned. An
// application may read in one goroutine and answer in another.
type payloadReader struct {
	chunkSource
	messageID int64

	done atomic.Bool // the last chunk was read

	mu       sync.Mutex
	sequence int64 // of the last chunk
	packed   chunk // that chunk, until its data is read
	data     []byte
	err      error
}

// begin returns the reader for the data of a message whose header was read.
func (r *payloadReader) begin(ctx context.Context, in *incoming, decoder *wire.Decoder, first *earlyChunk) *payloadReader {
	r.in, r.opener, r.messageID, r.message, r.reading, r.early = decoder, in.sender.Opener, in.messageID, in, ctx, first
	return r
}

// openWith opens the chunks with other keys than the header's, and discards what was
// opened early with those.
func (r *payloadReader) openWith(o Opener) { r.opener, r.early = o, nil }

// Read reads application data. After the last chunk it returns io.EOF; a stream that ends
// earlier is ErrTruncated.
func (r *payloadReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// WriteTo passes each chunk to w as it is opened. The chunk's memory is detached first,
// so w may use the reader freely.
func (r *payloadReader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		data, lent, err := r.take()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(data)
		n = min(max(n, 0), len(data))
		if total += int64(n); err == nil && n < len(data) {
			err = io.ErrShortWrite
		}
		r.giveBack(lent, data[n:])
		if err != nil {
			return total, err
		}
	}
}

// take removes and returns the buffered data and its memory.
func (r *payloadReader) take() (data, lent []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err = r.fill(); err != nil {
		return nil, nil, err
	}
	data, r.data = r.data, nil
	if r.in != nil {
		mem := r.memory()
		lent, mem.Content = mem.Content, nil
	}
	return data, lent, nil
}

// giveBack returns the memory taken, with the unused data. It leaves memory that is in
// use again alone.
func (r *payloadReader) giveBack(lent, unused []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != errEnded {
		r.data = append(unused[:len(unused):len(unused)], r.data...)
	}
	if r.in != nil && r.memory().Content == nil {
		r.memory().Content = lent
	}
}

// fill makes sure that there is data, or returns the error that says why not.
func (r *payloadReader) fill() error {
	for len(r.data) == 0 && r.err == nil {
		if r.ended() {
			return io.EOF
		}
		r.err = r.more()
	}
	if len(r.data) == 0 {
		return r.err
	}
	return nil
}

// Ended reports whether the end of the message was read from its stream. If so, nothing
// more will come, and an answer need not be flushed before its end.
func (r *payloadReader) Ended() bool { return r.done.Load() }

func (r *payloadReader) ended() bool { return r.done.Load() && len(r.packed.data) == 0 }

// more gets the data of the next chunk.
func (r *payloadReader) more() error {
	if len(r.packed.data) == 0 {
		if err := r.next(); err != nil {
			return err
		}
	}
	data, err := r.inflated(r.packed)
	if err != nil {
		return withID(err, r.messageID)
	}
	r.data, r.packed = data, chunk{}
	return nil
}

// inflated returns the data of a chunk, decompressed.
func (r *payloadReader) inflated(c chunk) ([]byte, error) {
	if c.compression == "" {
		return c.data, nil
	}
	return decompress(c.compression, c.data, r.message.inflation(r.reading, aChunk))
}

// next reads one chunk. A chunk in sequence is decompressed only when its data is wanted.
func (r *payloadReader) next() error {
	if err := r.message.account.hold(r.reading, aChunk, 0); err != nil { // the data of the last one is used up
		return streamError(err, "Chunk")
	}
	c, err := r.chunk()
	switch err {
	case nil:
		err = r.accept(c)
	case ErrTruncated:
		return err
	}
	return withID(err, r.messageID)
}

// accept checks an opened chunk in the protocol's order.
func (r *payloadReader) accept(c chunk) error {
	if len(c.data) == 0 && !c.end {
		return fail(ErrPayloadDataMissing, "payload chunk", nil)
	}
	if c.messageID != r.messageID || c.sequence != next(r.sequence) {
		return r.misplaced(c)
	}
	r.sequence, r.packed = c.sequence, c
	r.done.Store(c.end)
	return nil
}

// misplaced is the error for a chunk of another message or out of sequence. Damaged data
// takes precedence.
func (r *payloadReader) misplaced(c chunk) error {
	if _, err := r.inflated(c); err != nil {
		return err
	}
	if c.messageID != r.messageID {
		return fail(ErrPayloadMessageIDMismatch, "payload chunk", nil)
	}
	return fail(ErrPayloadSequenceNumberMismatch, "payload chunk", nil)
}

// empty reports whether the current chunk has no data. It reads at most one byte.
func (r *payloadReader) empty() bool {
	data, err := decompress(r.packed.compression, r.packed.data, wire.Inflation{Ratio: r.message.limits.Inflate, Most: 1})
	return err == nil && len(data) == 0
}

// A chunk is the inside of a payload chunk.
type chunk struct {
	sequence    int64
	messageID   int64
	end         bool
	compression string
	data        []byte
}

// A sealedChunk is a chunk as it was received.
type sealedChunk struct{ payload, signature []byte }

// readSealedChunk decodes the parts of a chunk in place.
func readSealedChunk(o wire.Object) (sealedChunk, error) {
	f := wire.FieldsOf(o)
	s := sealedChunk{f.Decoded("payload"), f.Decoded("signature")}
	return s, malformed(f, "payload chunk")
}

// open verifies, decrypts and parses a chunk; its data is then in mem. If goOn is not
// nil, it must return true before the decryption. The sealed chunk is not changed.
func (s sealedChunk) open(mem *wire.Memory, opener Opener, goOn func() bool) (chunk, error) {
	plaintext, err := s.plaintext(mem, opener, goOn)
	if err == errSignature {
		err = fail(ErrPayloadVerificationFailed, "payload chunk", nil)
	}
	if err != nil {
		return chunk{}, err
	}
	mem.Content = plaintext
	return readChunk(mem, plaintext)
}

func (s sealedChunk) plaintext(mem *wire.Memory, opener Opener, goOn func() bool) ([]byte, error) {
	if goOn == nil {
		return openIn(mem, opener, s.payload, s.signature)
	}
	if err := verifyIn(mem, opener, s.payload, s.signature); err != nil {
		return nil, err
	}
	if !goOn() {
		return nil, errEnded
	}
	return decryptIn(mem, opener, mem.Content[:0], s.payload)
}

// readChunk parses a chunk that was opened. The data stays in plaintext.
func readChunk(mem *wire.Memory, plaintext []byte) (chunk, error) {
	inside, err := mem.Parse(plaintext, wire.Limits{Object: len(plaintext)})
	if err != nil {
		return chunk{}, fail(ErrMSLParseError, "payload chunk", err)
	}
	return parseChunk(inside)
}

// parseChunk decodes the data in place.
func parseChunk(o wire.Object) (chunk, error) {
	const op = "payload chunk"
	f := wire.FieldsOf(o)
	c := chunk{sequence: f.Int("sequencenumber")}
	if f.Err() == nil && !inRange(c.sequence) {
		return c, fail(ErrPayloadSequenceNumberOutOfRange, op, nil)
	}
	c.messageID = f.Int("messageid")
	if f.Err() == nil && !inRange(c.messageID) {
		return c, fail(ErrPayloadMessageIDOutOfRange, op, nil)
	}
	c.end = f.OptionalBool("endofmsg")
	c.compression = f.OptionalString("compressionalgo")
	if f.Err() == nil {
		if err := knownCompression(o, c.compression); err != nil {
			return c, err
		}
	}
	if c.data = f.Decoded("data"); len(c.data) == 0 {
		c.compression = "" // there is nothing to decompress
	}
	return c, malformed(f, op)
}

func (c chunk) encode(e *wire.Encoder) {
	e.Begin()
	e.Int("sequencenumber", c.sequence)
	e.Int("messageid", c.messageID)
	if c.end {
		e.Bool("endofmsg", true)
	}
	if c.compression != "" {
		e.String("compressionalgo", c.compression)
	}
	e.Bytes("data", c.data)
	e.End()
}

// streamError adds the code to a failure to read an object from a stream. limit is the
// one for its length.
func streamError(err error, limit string) error {
	switch {
	case errors.Is(err, errBusy), errors.Is(err, errEnded):
		return fail(ErrInternalException, "read message", err)
	case cutOff(err):
		return fail(ErrMSLParseError, "read message", ErrTruncated)
	case errors.Is(err, wire.ErrSyntax), errors.Is(err, wire.ErrLimit):
		return fail(ErrMSLParseError, "read message", exceeded(err, limit))
	}
	return fail(ErrMSLCommsFailure, "read message", err)
}

// cutOff reports whether a stream ended where it must not, in MSL or in the transport
// below.
func cutOff(err error) bool {
	return errors.Is(err, wire.ErrTruncated) || errors.Is(err, io.ErrUnexpectedEOF)
}
