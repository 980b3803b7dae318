package msl_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A body that is read after its message is over gives an error, and never the memory
// that other messages have by then.
func TestBodyAfterTheEnd(t *testing.T) {
	for name, read := range map[string]func(io.Reader) error{
		"Read":    func(r io.Reader) error { _, err := r.Read(make([]byte, 10)); return err },
		"WriteTo": func(r io.Reader) error { _, err := r.(io.WriterTo).WriteTo(io.Discard); return err },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, soft.New())
			var kept io.Reader
			n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				kept = m.Body
				if _, err := io.ReadFull(m.Body, make([]byte, 100)); err != nil {
					return err
				}
				_, err := w.Write(make([]byte, 1000))
				return err
			}
			r, err := n.pskClient("device").Do(context.Background(), &msl.Request{Encrypted: true, Body: msl.BytesBody(make([]byte, 1000))})
			if err != nil {
				t.Fatal(err)
			}
			if err := read(kept); err == nil || err == io.EOF {
				t.Errorf("the request: %v", err)
			}
			var body io.Reader = r.Body
			if name == "WriteTo" {
				return // the answer has no such method
			}
			if err := r.Body.Close(); err != nil {
				t.Fatal(err)
			}
			if err := read(body); err == nil || err == io.EOF {
				t.Errorf("the answer: %v", err)
			}
		})
	}
}

// A chunk that was lent to a writer stays as it is, even if that reads on.
func TestLentChunk(t *testing.T) {
	n := newNetwork(t, soft.New())
	data := random(5 * 64 << 10)
	n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		reads := &readingWriter{from: m.Body}
		if _, err := io.Copy(reads, m.Body); err != nil {
			return err
		}
		if !bytes.Equal(reads.got, data) {
			t.Errorf("the handler got other data: %d bytes", len(reads.got))
		}
		return nil
	}
	r, err := n.pskClient("device").Do(context.Background(), &msl.Request{Encrypted: true, Body: msl.BytesBody(data)})
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
}

// A readingWriter reads more before it uses what it was given.
type readingWriter struct {
	from io.Reader
	got  []byte
}

func (w *readingWriter) Write(p []byte) (int, error) {
	more := make([]byte, 70<<10)
	n, err := io.ReadFull(w.from, more)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	w.got = append(append(w.got, p...), more[:n]...)
	return len(p), err
}

// A body in memory is sent as it is, and stays so, whatever the length of it.
func TestBytesBodyIsLent(t *testing.T) {
	n := newNetwork(t, soft.New())
	var got []byte
	n.handler = func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) (err error) {
		got, err = io.ReadAll(m.Body)
		return err
	}
	c := n.pskClient("device")
	for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 3 * 64 << 10} {
		room := random(size + 1000)
		before := bytes.Clone(room)
		r, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Body: msl.BytesBody(room[:size])})
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if !bytes.Equal(got, before[:size]) || !bytes.Equal(room, before) {
			t.Errorf("%d bytes: %d arrived; or what is behind them has changed", size, len(got))
		}
	}
}
