package msl

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// TestDiscard discards the rest of a message that was read so far. Whoever is still reading it then
// does not take what they got for the whole.
func TestDiscard(t *testing.T) {
	data, message := longMessage(t, 2)
	last := bytes.LastIndex(message, []byte(`{"payload"`))
	outOfOrder := append(bytes.Clone(message[:last]), message[:last]...)
	for _, c := range []struct {
		read    int
		message []byte
		failed  error // of discard
		after   error // of a later read
	}{
		{0, message, nil, errEnded},
		{1, message, nil, errEnded},
		{2*flushSize + 1, message, nil, errEnded},
		{len(data), message, nil, io.EOF},
		{1, outOfOrder, ErrPayloadSequenceNumberMismatch, ErrPayloadSequenceNumberMismatch},
		{1, message[:len(message)-1], ErrTruncated, ErrTruncated},
	} {
		r := newReader(new(opener), nil, bytes.NewReader(c.message))
		if _, err := io.CopyN(io.Discard, struct{ io.Reader }{r}, int64(c.read)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.discard(); !errors.Is(err, c.failed) {
				t.Errorf("%d read: %v, want %v", c.read, err, c.failed)
				break
			}
			if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, c.after) {
				t.Errorf("%d read and the rest discarded: %d more, %v, want %v", c.read, n, err, c.after)
			}
		}
		r.message.close()
	}
}
