package msl

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// An opener opens chunks when those it waits for are there.
type opener struct {
	Null
	verified, decrypted atomic.Int32
	turn                chan struct{} // if not nil, two verify at a time, until it is over
	over                int32
	hold                chan struct{} // if not nil, the second chunk waits for it,
	begun               chan struct{} // and the first one until it does
}

func (o *opener) Verify(data, _ []byte) error {
	n := o.verified.Add(1)
	if o.turn != nil && n <= o.over {
		select {
		case o.turn <- struct{}{}:
		case <-o.turn:
		}
	}
	switch {
	case o.hold == nil:
	case bytes.Contains(data, []byte(`"sequencenumber":1,`)):
		<-o.begun
	case bytes.Contains(data, []byte(`"sequencenumber":2,`)):
		close(o.begun)
		<-o.hold
	}
	if bytes.HasSuffix(data, []byte("forged")) {
		return errSignature
	}
	return nil
}

func (o *opener) Decrypt(data []byte) ([]byte, error) {
	o.decrypted.Add(1)
	return data, nil
}

// An opener that is away fails so many times.
type away struct {
	Null
	failing atomic.Int32
}

func (a *away) Verify(_, _ []byte) error {
	if a.failing.Add(-1) >= 0 {
		return keystore.ErrUnavailable
	}
	return nil
}

// longMessage has full chunks, and a last one of 10 bytes.
func longMessage(t *testing.T, full int) (data, message []byte) {
	data = make([]byte, full*flushSize+10)
	for i := range data {
		data[i] = byte(i / 1000)
	}
	var out bytes.Buffer
	w := newWriter(new(meeting), &out)
	if err := errors.Join(w.lend(data), w.Close()); err != nil {
		t.Fatal(err)
	}
	return data, out.Bytes()
}

func newReader(o Opener, a *account, r io.Reader) *payloadReader {
	ctx := context.Background()
	in := &incoming{header: header{messageID: 7}, sender: Sender{Opener: o}, account: a, limits: &Limits{}, release: func() {}}
	decoder := wire.NewDecoder(r, wire.Limits{})
	if a != nil {
		decoder = a.decoder(ctx, r, Limits{}.Effective(), anObject)
	}
	in.body = in.payload.begin(ctx, in, decoder, nil)
	return in.body
}

// Two chunks are opened at the same time, however the message is read.
func TestChunksOpenedAtOnce(t *testing.T) {
	data, message := longMessage(t, 4)
	for name, read := range map[string]func(*payloadReader) ([]byte, error){
		"read": func(r *payloadReader) ([]byte, error) { return io.ReadAll(struct{ io.Reader }{r}) },
		"written": func(r *payloadReader) ([]byte, error) {
			var b bytes.Buffer
			_, err := r.WriteTo(&b)
			return b.Bytes(), err
		},
		"read ahead": func(r *payloadReader) ([]byte, error) {
			r.readAhead(3 * flushSize)
			return io.ReadAll(r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := &opener{turn: make(chan struct{}), over: 4}
			r := newReader(o, nil, bytes.NewReader(message))
			if got, err := read(r); err != nil || !bytes.Equal(got, data) || !r.Ended() {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			r.message.close()
		})
	}
}

// A source that does not tell what is still to come is read no further than it has begun.
func TestChunksOfUnknownSources(t *testing.T) {
	data, message := longMessage(t, 3)
	for name, source := range map[string]io.Reader{
		"bytes":  iotest.OneByteReader(bytes.NewReader(message)),
		"halves": iotest.HalfReader(bytes.NewReader(message)),
		"all":    iotest.DataErrReader(bytes.NewReader(message)),
	} {
		r := newReader(new(opener), nil, source)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// An error in a chunk is reported when the data before it was read, whatever is wrong
// with later ones.
func TestFailuresInTheirOrder(t *testing.T) {
	data, message := longMessage(t, 4)
	all := bytes.SplitAfter(message, []byte("}"))[:5]
	payload, _, _ := bytes.Cut(all[1], []byte(`","signature`))
	forged := append(bytes.Clone(payload[:len(payload)-4]), `AGZvcmdlZA==","signature":""}`...)
	for name, c := range map[string]struct {
		bad  []byte
		want error
	}{
		"forged":    {forged, ErrPayloadVerificationFailed},
		"too early": {all[3], ErrPayloadSequenceNumberMismatch},
		"malformed": {[]byte(`{"payload":"` + strings.Repeat("!", 70000) + `","signature":""}`), ErrMSLParseError},
		"no JSON":   {[]byte(`{"payload"}` + string(all[1])), ErrMSLParseError},
		"other":     {[]byte(`{"headerdata":""}`), ErrMSLParseError},
		"cut off":   {nil, ErrTruncated},
	} {
		for at := range 3 {
			in := append(bytes.Join(all[:at], nil), c.bad...)
			if c.bad != nil {
				in = append(append(in, all[3]...), forged...)
			}
			r := newReader(new(opener), nil, bytes.NewReader(in))
			got, err := io.ReadAll(r)
			if !bytes.Equal(got, data[:at*flushSize]) || !errors.Is(err, c.want) {
				t.Errorf("%s at %d: %d bytes, %v", name, at, len(got), err)
			}
			r.message.close()
		}
	}
}

// A message that its transport cuts off, or that ends within a chunk, is cut off as one is that ends
// between two chunks: nothing in it was wrong.
func TestCutOffByTransport(t *testing.T) {
	data, message := longMessage(t, 2)
	first := bytes.IndexByte(message, '}') + 1
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF} {
		for _, cut := range []int{first, first + 1, len(message) - 1} {
			r := newReader(new(opener), nil, io.MultiReader(bytes.NewReader(message[:cut]), iotest.ErrReader(end)))
			got, err := io.ReadAll(r)
			if n := len(got); err != ErrTruncated || n == 0 || n%flushSize != 0 || !bytes.Equal(got, data[:n]) {
				t.Errorf("cut at %d by %v: %d bytes, %v", cut, end, n, err)
			}
			r.message.close()
		}
	}
}

// Bytes after the last chunk are not part of the message: they are left to the next one.
func TestNothingReadBehindTheEnd(t *testing.T) {
	_, message := longMessage(t, 2)
	next := `{"headerdata":"` + strings.Repeat("A", 40000) + `"}`
	r := newReader(new(opener), nil, bytes.NewReader(append(message, next...)))
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	if o, err := r.in.Next(); err != nil || string(o.Raw()) != next {
		t.Errorf("%d bytes, %v", len(o.Raw()), err)
	}
}

// The end of a message waits for a chunk that was begun, before the keys are released.
func TestClosedBeforeChunksAreRead(t *testing.T) {
	_, message := longMessage(t, 4)
	for name, end := range map[string]func(*payloadReader){
		"closed": func(r *payloadReader) { r.message.close() }, "shut": (*payloadReader).shut, "over": (*payloadReader).over,
	} {
		t.Run(name, func(t *testing.T) {
			o := &opener{hold: make(chan struct{}), begun: make(chan struct{})}
			r := newReader(o, nil, bytes.NewReader(message))
			var decrypted int32
			r.message.release = func() { decrypted = o.decrypted.Load() }
			if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			go close(o.hold)
			end(r)
			r.message.close()
			if decrypted != 2 || r.coming != nil {
				t.Errorf("%d chunks were decrypted when the keys were released", decrypted)
			}
		})
	}
}

// A message that was answered is read no further, since the next one follows. What it ended with
// before stays.
func TestShut(t *testing.T) {
	_, message := longMessage(t, 3)
	for name, c := range map[string]struct {
		message []byte
		before  int64 // bytes that were read
		want    error
	}{"unread": {message, 10, errShut}, "read": {message, math.MaxInt64, nil}, "cut off": {message[:len(message)-1], math.MaxInt64, ErrTruncated}} {
		r := newReader(new(opener), nil, bytes.NewReader(c.message))
		io.Copy(io.Discard, io.LimitReader(r, c.before))
		r.shut()
		if got, err := io.ReadAll(r); len(got) >= flushSize || !errors.Is(err, c.want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		r.message.close()
	}
}

// A message of one chunk is opened where it is read, and so is each where there is too
// little memory. What is held is counted.
func TestMemoryOfOpenings(t *testing.T) {
	data, message := longMessage(t, 4)
	_, short := longMessage(t, 0)
	for name, c := range map[string]struct {
		message []byte
		total   int64
		want    bool
	}{"plenty": {message, 64 << 20, true}, "little": {message, 5 << 18, false}, "one chunk": {short, 64 << 20, false}} {
		t.Run(name, func(t *testing.T) {
			b := newBudget(c.total, c.total, 0, 0)
			a := memory{b, b}.open("source", nil)
			r := newReader(new(opener), a, bytes.NewReader(c.message))
			got, err := io.ReadAll(r)
			if err != nil || len(got) > 10 && !bytes.Equal(got, data) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if used := a.held[someChunks] > 0; used != c.want || (r.most > 0) != c.want || a.held[someChunks] > c.total/2 {
				t.Errorf("%d bytes are held", a.held[someChunks])
			}
			if a.close(); b.inUse() != 0 {
				t.Errorf("%d bytes are in use", b.inUse())
			}
		})
	}
}

// A device that was away for a moment is asked again, for no chunk out of its turn.
func TestOpeningPersists(t *testing.T) {
	data, message := longMessage(t, 3)
	o := new(away)
	o.failing.Store(3)
	r := newReader(o, nil, bytes.NewReader(message))
	r.ctx = t.Context()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
