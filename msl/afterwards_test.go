package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestBodyAfterwards has an application keep the body of a message and read on when the next
// message is handled, and when all are: what it has not read by then is lost, which is an
// error, and it gets nothing of another message.
func TestBodyAfterwards(t *testing.T) {
	message := func(chunks ...any) []byte { return pskClient1.message(byPSK("client1"), one(), chunks...) }
	single, double := message(hello), message(with(hello, object{"endofmsg": nil}), with(hello, object{"sequencenumber": 2}))
	for way, serve := range waysToServe() {
		for _, c := range []struct {
			name  string
			first []byte
			read  int
			over  bool // the end was read
		}{
			{"nothing", single, 0, false}, {"a part", single, 3, false}, {"all data", single, 5, true}, {"the end", single, 6, true},
			{"nothing of two chunks", double, 0, false}, {"the first chunk", double, 5, false}, {"a part of the second", double, 7, false}, {"the end of two chunks", double, 11, true},
		} {
			t.Run(way+"/"+c.name, func(t *testing.T) {
				var kept io.Reader
				again := func() {
					n, err := kept.Read(make([]byte, 10))
					if n != 0 || err == nil || (err == io.EOF) != c.over {
						t.Errorf("then %d bytes, %v", n, err)
					}
				}
				handled := 0
				err := serve(t, newRecorded(t), bytes.Join([][]byte{c.first, single}, nil), func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
					if handled++; handled == 1 {
						kept = m.Body
						_, err := io.ReadFull(kept, make([]byte, c.read))
						if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
							t.Error(err)
						}
						return msl.ErrNoReply
					}
					again()
					if data, err := io.ReadAll(m.Body); string(data) != "hello" || err != nil {
						t.Errorf("the next message: %q, %v", data, err)
					}
					return msl.ErrNoReply
				})
				again()
				if err != nil || handled == 0 {
					t.Errorf("handled %d messages, %v", handled, err)
				}
			})
		}
	}
}

// waysToServe are the ways in which a server reads messages, of which each but the first
// reads several.
func waysToServe() map[string]func(*testing.T, *recorded, []byte, msl.Handler) error {
	return map[string]func(*testing.T, *recorded, []byte, msl.Handler) error{
		"one message": func(t *testing.T, r *recorded, messages []byte, handle msl.Handler) error {
			return r.server.Serve(t.Context(), "test", bytes.NewReader(messages), io.Discard, handle)
		},
		"stream": func(t *testing.T, r *recorded, messages []byte, handle msl.Handler) error {
			return r.server.ServeStream(t.Context(), "test", &fixedConn{Reader: bytes.NewReader(messages)}, handle)
		},
		"peer": func(t *testing.T, r *recorded, messages []byte, handle msl.Handler) error {
			conn, _ := r.peerTo(t, messages)
			return errors.Join(conn.Serve(t.Context(), handle), conn.Serve(t.Context(), handle))
		},
	}
}
