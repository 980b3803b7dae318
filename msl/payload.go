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

// ErrTruncated says that a message ended without its last payload chunk, so that
// the data may be incomplete. It is an [io.ErrUnexpectedEOF].
var ErrTruncated = fmt.Errorf("msl: message was cut off before its end: %w", io.ErrUnexpectedEOF)

// flushSize is how much data this package's writer puts into one chunk.
const flushSize = 64 << 10

// A payloadReader gives the application the data of a message, chunk by chunk:
// each verified, decrypted and in its order before a byte of it is given. An
// application may read in another goroutine than the one in which it answers.
type payloadReader struct {
	ctx       context.Context // nil, or for how long a device is waited for
	in        *wire.Decoder   // nil when the message is over
	opener    Opener
	messageID int64
	message   *incoming       // the message whose memory it uses
	reading   context.Context // that bounds a wait for memory

	done atomic.Bool // the last chunk was read

	mu       sync.Mutex
	sequence int64 // of the last chunk
	packed   chunk // that chunk, until its data is read
	data     []byte
	err      error
}

// begin returns the reader for the data of a message whose header was read.
func (r *payloadReader) begin(ctx context.Context, in *incoming, decoder *wire.Decoder) *payloadReader {
	r.in, r.opener, r.messageID, r.message, r.reading = decoder, in.sender.Opener, in.messageID, in, ctx
	return r
}

// Read reads application data. After the chunk that ends the message it is
// io.EOF; a stream that ends before is ErrTruncated.
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

// WriteTo gives each chunk to w as it is opened. The memory of the chunk is lent by
// then: w may do with the reader what it will.
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

// take returns the buffered data and leaves none, nor the memory that it is in.
func (r *payloadReader) take() (data, lent []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err = r.fill(); err != nil {
		return nil, nil, err
	}
	data, r.data = r.data, nil
	if r.in != nil {
		mem := r.in.Memory()
		lent, mem.Content = mem.Content, nil
	}
	return data, lent, nil
}

// giveBack gives back what was taken, and the data that was not used. Memory that is in
// use by then is left alone.
func (r *payloadReader) giveBack(lent, unused []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != errEnded {
		r.data = append(unused[:len(unused):len(unused)], r.data...)
	}
	if r.in != nil && r.in.Memory().Content == nil {
		r.in.Memory().Content = lent
	}
}

// keep leaves the memory to another message, apart from data that was not read.
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

// leave ends the reading of a message, and returns what it was read with. Whoever reads
// it nevertheless gets an error, unless there is nothing left.
func (r *payloadReader) leave() (in *wire.Decoder) {
	in, r.in = r.in, nil
	if !r.ended() || len(r.data) > 0 {
		r.done.Store(false)
		r.err, r.data, r.packed = errEnded, nil, chunk{}
	}
	return in
}

// over ends the reading of a message whose memory the next one gets.
func (r *payloadReader) over() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave()
}

// free ends the reading of a message and frees the memory of it, unless somebody is
// still reading.
func (r *payloadReader) free() {
	if !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	if in := r.leave(); in != nil {
		in.Free()
	}
}

// fill makes sure that there is data, or returns the error that says why not.
func (r *payloadReader) fill() error {
	for len(r.data) == 0 {
		if r.ended() {
			return io.EOF
		}
		if r.err == nil {
			r.err = r.more()
		}
		if r.err != nil {
			return r.err
		}
	}
	return nil
}

// Ended reports whether the end of the message was read from its stream. Then nothing
// more will come, and an answer need not be flushed before its end.
func (r *payloadReader) Ended() bool { return r.done.Load() }

// ended reports whether all data was read.
func (r *payloadReader) ended() bool { return r.done.Load() && len(r.packed.data) == 0 }

// more gets the data of the next chunk.
func (r *payloadReader) more() error {
	if len(r.packed.data) == 0 {
		if err := r.next(); err != nil {
			return err
		}
	}
	data, err := r.packed.data, error(nil)
	if r.packed.compression != "" {
		data, err = decompress(r.packed.compression, data, r.message.inflation(r.reading, aChunk))
	}
	if err != nil {
		return withID(err, r.messageID)
	}
	r.data, r.packed = data, chunk{}
	return nil
}

// next reads one chunk. The chunk is decompressed only when its data is wanted.
func (r *payloadReader) next() error {
	if err := r.message.account.hold(r.reading, aChunk, 0); err != nil { // the data of the last one is used up
		return streamError(err, "Chunk")
	}
	o, err := r.in.Next()
	if err == io.EOF || cutOff(err) {
		return ErrTruncated
	}
	if err != nil {
		return withID(streamError(err, "Chunk"), r.messageID)
	}
	c, err := r.open(o)
	if err == nil {
		err = r.accept(c)
	}
	return withID(err, r.messageID)
}

// accept makes the checks of an opened chunk in the protocol's order.
func (r *payloadReader) accept(c chunk) error {
	const op = "payload chunk"
	switch {
	case len(c.data) == 0 && !c.end:
		return fail(ErrPayloadDataMissing, op, nil)
	case c.messageID != r.messageID:
		return fail(ErrPayloadMessageIDMismatch, op, nil)
	case c.sequence != next(r.sequence):
		return fail(ErrPayloadSequenceNumberMismatch, op, nil)
	}
	r.sequence, r.packed = c.sequence, c
	r.done.Store(c.end)
	return nil
}

// errShut says that a message was read after its answer was complete.
var errShut = errors.New("msl: the message was answered, and its data cannot be read any more")

// shut ends the reading of a message on a connection that lasts. An application may have
// left another goroutine reading, as a request to a service does that was answered early:
// that must not take a part of the next message. shut waits for a read under way, which
// ends with the next chunk or the connection.
func (r *payloadReader) shut() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = errShut
	}
}

// empty reports whether the current chunk has no data. One byte is enough to see that.
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

// open verifies, decrypts and parses a chunk, whose data is in the memory of the message
// until the next one is read.
func (r *payloadReader) open(o wire.Object) (chunk, error) {
	const op = "payload chunk"
	f := wire.FieldsOf(o)
	payload, signature := f.Decoded("payload"), f.Decoded("signature")
	if err := malformed(f, op); err != nil {
		return chunk{}, err
	}
	mem := r.in.Memory()
	err := persist(r.ctx, func() error { return r.openPayload(mem, payload, signature) })
	if err != nil {
		return chunk{}, err
	}
	inside, err := mem.Parse(mem.Content, wire.Limits{Object: len(mem.Content)})
	if err != nil {
		return chunk{}, fail(ErrMSLParseError, op, err)
	}
	return parseChunk(inside)
}

// openPayload puts the plaintext into the content memory, and leaves the payload as it
// is: it may be done again.
func (r *payloadReader) openPayload(mem *wire.Memory, payload, signature []byte) error {
	switch err := verifyIn(mem, r.opener, payload, signature); {
	case err == errSignature:
		return fail(ErrPayloadVerificationFailed, "payload chunk", nil)
	case err != nil:
		return err
	}
	plaintext, err := decryptIn(mem, r.opener, mem.Content[:0], payload)
	if err == nil {
		mem.Content = plaintext
	}
	return err
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
	c.data = f.Decoded("data")
	return c, malformed(f, op)
}

// A payloadWriter turns the application's data into chunks.
type payloadWriter struct {
	ctx         context.Context // nil, or for how long a device is waited for
	out         io.Writer
	head        *sealedHeader // to be sent before the first chunk
	tell        func()        // of the head, once it is sent, or nil
	protector   Protector
	messageID   int64
	compression string

	sequence int64 // of the last chunk
	buffer   []byte
	ahead    []*sealing // chunks that were started and not sent, in their order
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

// sendFull sends the buffer, soon. As long as nothing was sent, an error can be answered
// with an error message, so the first chunk of an answer is not put off.
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

// lend is Write, without a copy, of data that stays as it is until Close.
func (w *payloadWriter) lend(p []byte) error {
	for ; len(p) >= flushSize && w.err == nil; p = p[flushSize:] {
		_, w.err = w.start(p[:flushSize], false)
	}
	w.buffer = p[:len(p):len(p)]
	return w.err
}

// Flush sends what is buffered, if anything is, and has a transport that holds
// bytes back send them, too.
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
	head := w.head
	if w.head = nil; head == nil {
		return nil
	}
	if w.err = head.send(w.out); w.err == nil && w.tell != nil {
		w.tell()
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
	object, err := w.seal(mem, chunk{sequence: w.sequence, messageID: w.messageID, end: end, data: w.buffer})
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

// seal compresses and protects a chunk. The object that it returns has to be freed.
func (w *payloadWriter) seal(mem *wire.Memory, c chunk) (object *wire.Encoder, err error) {
	if c.data, c.compression, err = compress(w.compression, c.data); err != nil {
		return nil, err
	}
	inside := wire.Scratch(128 + len(c.data)*4/3)
	defer inside.Free()
	c.encode(inside)
	payload, signature, err := w.protect(mem, inside.Encoded())
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

func (w *payloadWriter) protect(mem *wire.Memory, inside []byte) (payload, signature []byte, err error) {
	err = persist(w.ctx, func() error {
		payload, signature, err = sealIn(mem, w.protector, inside)
		return err
	})
	return payload, signature, err
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

// streamError gives a failure to read an object from a stream its code. limit is
// the one for its length.
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

// cutOff reports whether a stream ended where it must not: for MSL, or for the
// transport below.
func cutOff(err error) bool {
	return errors.Is(err, wire.ErrTruncated) || errors.Is(err, io.ErrUnexpectedEOF)
}
