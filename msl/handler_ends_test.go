package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// However a handler ends, and whatever of its message it leaves unread, a server has
// nothing left of the message: no memory, no turn, no goroutine.
func TestHandlerEndsOddly(t *testing.T) {
	body := make([]byte, 200<<10) // with less, all has arrived when a handler stops in between
	handlers := map[string]msl.Handler{
		"reads nothing": func(context.Context, *msl.ResponseWriter, *msl.Message) error { return nil },
		"panics":        func(context.Context, *msl.ResponseWriter, *msl.Message) error { panic("handler") },
		"panics in between": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			io.Copy(panics{w}, m.Body)
			return nil
		},
		"panics, answering": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error { w.Write(body); panic("handler") },
		"fails, answering": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.Write(body)
			return errors.New("no more")
		},
		"leaves a reader": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			go io.Copy(io.Discard, m.Body)
			return nil
		},
		"leaves a slow writer": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			go io.Copy(slowWriter{}, m.Body)
			time.Sleep(time.Second / 2)
			return nil
		},
		"rejects": func(context.Context, *msl.ResponseWriter, *msl.Message) error { return msl.ErrRejectEntity },
	}
	for name, handle := range handlers {
		t.Run(name, func(t *testing.T) { endOddly(t, handle, body) })
	}
}

type panics struct{ io.Writer }

func (p panics) Write([]byte) (int, error) { panic("writer") }

type slowWriter struct{}

func (slowWriter) Write(b []byte) (int, error) { time.Sleep(time.Second); return len(b), nil }

func endOddly(t *testing.T, handle msl.Handler, body []byte) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := newSlowBench(t)
		b.body = body
		var message []byte
		b.intercept = func(m []byte) []byte { message = bytes.Clone(m); return m }
		b.mustSend()
		b.restart()
		for range 2 { // the first message brings its session back
			func() {
				defer func() { recover() }()
				b.server.Serve(t.Context(), "test", bytes.NewReader(message), io.Discard, handle)
			}()
		}
		time.Sleep(time.Minute)
		established, steps := b.server.UnderWay()
		unproven, proven := b.server.InUse()
		if established != 0 || steps != 0 || unproven != 0 || proven != 0 {
			t.Errorf("left: %d messages, %d steps, %d and %d bytes", established, steps, unproven, proven)
		}
		b.mustSend()
	})
}
