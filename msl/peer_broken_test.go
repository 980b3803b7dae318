package msl_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestPeerBodyFails has the data of a request and of a message without an answer fail while it is
// sent: neither side waits for the other.
func TestPeerBodyFails(t *testing.T) {
	failed := errors.New("the disk is gone")
	for name, send := range map[string]func(*msl.Conn, *msl.Request) error{
		"request": func(c *msl.Conn, r *msl.Request) error { _, err := c.Request(t.Context(), r); return err },
		"message": func(c *msl.Conn, r *msl.Request) error { return c.Send(t.Context(), r) },
	} {
		one, two := newSides(t, "PSK", "PSK")
		a, b := connect(t, one, two)
		served := serveAll(b, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			_, err := io.Copy(io.Discard, m.Body)
			return err
		}, 2)
		data := io.MultiReader(strings.NewReader(strings.Repeat("x", 200<<10)), iotest.ErrReader(failed))
		if err := send(a, &msl.Request{Encrypted: true, Authenticated: true, Body: msl.ReaderBody(data, 0)}); !errors.Is(err, failed) {
			t.Errorf("%s: %v", name, err)
		}
		if err := <-served; !errors.Is(err, msl.ErrTruncated) {
			t.Errorf("%s, at the other side: %v", name, err)
		}
		if _, err := a.Request(t.Context(), &msl.Request{}); !errors.Is(err, failed) {
			t.Errorf("%s, another one on the connection: %v", name, err)
		}
	}
}

// TestPeerUnreadDamage has a handler answer without reading a request, whose rest is forged: the
// next message is not taken from such a connection.
func TestPeerUnreadDamage(t *testing.T) {
	start := object{"sequencenumber": 1, "messageid": 1, "data": []byte("x")}
	last := encode(pskClient2.signed("payload", sessionRaw.encrypt(encode(object{"sequencenumber": 2, "messageid": 1, "endofmsg": true, "data": ""}))))
	conn, _ := newRecorded(t).peerTo(t, append(sessionRaw.message(byToken(nil), one(), start), last...))
	err := conn.Serve(t.Context(), func(_ context.Context, w *msl.ResponseWriter, _ *msl.Message) error {
		w.Encrypted, w.Authenticated = false, false
		return nil
	})
	if !errors.Is(err, msl.ErrPayloadVerificationFailed) {
		t.Error(err)
	}
}

// TestPeerDoesNotRead has a message without an answer stall, at its header and within its data: the
// end of its context ends it.
func TestPeerDoesNotRead(t *testing.T) {
	for _, size := range []int{10, 200 << 10} {
		one, two := newSides(t, "PSK", "PSK")
		a, _ := connect(t, one, two)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := a.Send(ctx, &msl.Request{Body: msl.BytesBody(make([]byte, size))}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d bytes: %v", size, err)
		}
		cancel()
	}
}
