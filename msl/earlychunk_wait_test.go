package msl_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"
)

// A stalled source knows its length, and has the rest when the channel is closed.
type stalled struct {
	*bytes.Reader
	until chan struct{}
	at    int64
}

func (s stalled) Read(b []byte) (int, error) {
	left := s.Size() - int64(s.Len())
	if left >= s.at {
		<-s.until
		return s.Reader.Read(b)
	}
	return s.Reader.Read(b[:min(int64(len(b)), s.at-left)])
}

// While a sender has the server wait for the first chunk, it has nothing of the server's
// but the memory of its header: no key is opened for it, and so no turn to do that taken.
func TestWaitForChunkTakesNoTurn(t *testing.T) {
	for name, restarted := range map[string]bool{"remembered session": false, "session that was forgotten": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, message := newSlowBench(t)
				if restarted {
					b.restart()
				}
				b.store.watch(nil)
				body := stalled{bytes.NewReader(message), make(chan struct{}), int64(bytes.LastIndex(message, []byte(`{"payload"`)))}
				done := make(chan error)
				go func() { done <- b.server.Serve(context.Background(), "test", body, io.Discard, b.handler) }()
				synctest.Wait()
				if o := b.store.operations(); len(o) > 0 {
					t.Errorf("operations for a message that stalls: %v", o)
				}
				close(body.until)
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
