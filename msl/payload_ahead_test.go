package msl

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A meeting seals chunks only when two of them are there, until it is over.
type meeting struct {
	Null
	sealed atomic.Int32
	turn   chan struct{}
	over   int32 // after so many there is nobody to wait for
	fail   int32 // the one that fails, or 0
}

func (m *meeting) Encrypt(plaintext []byte) ([]byte, error) {
	n := m.sealed.Add(1)
	if n <= m.over {
		select {
		case m.turn <- struct{}{}:
		case <-m.turn:
		}
	}
	if n == m.fail {
		return nil, errors.New("device lost")
	}
	return plaintext, nil
}

func newWriter(m *meeting, out io.Writer) *payloadWriter {
	m.turn = make(chan struct{})
	return &payloadWriter{out: out, protector: m, messageID: 7}
}

// chunks returns the data of the chunks that were written, with their numbers.
func chunks(t *testing.T, b []byte) (data []byte, numbers string, ended bool) {
	d := wire.NewDecoder(bytes.NewReader(b), wire.Limits{})
	for {
		o, err := d.Next()
		if err == io.EOF {
			return data, numbers, ended
		}
		if err != nil {
			t.Fatal(err)
		}
		payload, _ := o.Bytes("payload")
		inside, err := wire.Parse(payload, wire.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseChunk(inside)
		if err != nil {
			t.Fatal(err)
		}
		data, ended = append(data, c.data...), c.end
		numbers += " " + strconv.FormatInt(c.sequence, 10)
	}
}

// Two full chunks are sealed at the same time, and all are sent in their order.
func TestChunksAtOnce(t *testing.T) {
	data := make([]byte, 4*flushSize+10)
	for i := range data {
		data[i] = byte(i / 1000)
	}
	for name, write := range map[string]func(*payloadWriter) error{
		"lent": func(w *payloadWriter) error { return w.lend(data) },
		"written": func(w *payloadWriter) error {
			_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{bytes.NewReader(data)}, make([]byte, 10000))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			w := newWriter(&meeting{over: 4}, &out)
			if err := errors.Join(write(w), w.Close()); err != nil {
				t.Fatal(err)
			}
			if got, numbers, ended := chunks(t, out.Bytes()); !bytes.Equal(got, data) || numbers != " 1 2 3 4 5" || !ended {
				t.Errorf("%d bytes in chunks%s, ended: %v", len(got), numbers, ended)
			}
		})
	}
}

// A chunk that cannot be sealed or sent ends the message, and nothing after it is sent.
func TestChunkFailsAmongOthers(t *testing.T) {
	for _, which := range []int32{1, 2, 3, 4} {
		var out bytes.Buffer
		m := &meeting{fail: which}
		w := newWriter(m, &out)
		err := w.lend(make([]byte, 3*flushSize+1))
		if err == nil {
			err = w.Close()
		}
		w.abandon()
		if err == nil || w.Close() == nil || w.Flush() == nil {
			t.Errorf("chunk %d: %v", which, err)
		}
		if _, numbers, ended := chunks(t, out.Bytes()); ended || !strings.HasPrefix(" 1 2 3", numbers) {
			t.Errorf("chunk %d: sent%s, ended: %v", which, numbers, ended)
		}
	}
}

// A transport that takes no more ends the message as well.
func TestNoChunkAfterFailedWrite(t *testing.T) {
	out := &full{room: 1}
	w := newWriter(new(meeting), out)
	_, err := w.Write(make([]byte, 4*flushSize))
	if err = errors.Join(err, w.Close()); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	w.abandon()
	if out.tried != 2 {
		t.Errorf("%d writes", out.tried)
	}
}

// A full writer takes so many writes.
type full struct{ room, tried int }

func (f *full) Write(p []byte) (int, error) {
	if f.tried++; f.tried > f.room {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// Data written before a flush is sent by it, and an answer that is given up leaves no
// work behind.
func TestFlushAndAbandonChunks(t *testing.T) {
	var out bytes.Buffer
	w := newWriter(&meeting{over: 2}, &out)
	if _, err := w.Write(make([]byte, 2*flushSize+5)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if got, numbers, _ := chunks(t, out.Bytes()); len(got) != 2*flushSize+5 || numbers != " 1 2 3" {
		t.Errorf("%d bytes in chunks%s", len(got), numbers)
	}
	m := new(meeting)
	w = newWriter(m, io.Discard)
	if _, err := w.Write(make([]byte, 2*flushSize)); err != nil {
		t.Fatal(err)
	}
	if w.abandon(); m.sealed.Load() != 2 || len(w.ahead) != 0 {
		t.Errorf("%d chunks were sealed, %d are left", m.sealed.Load(), len(w.ahead))
	}
}
