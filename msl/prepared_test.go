package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// Tokens made for an answer that was not sent leave nothing behind, and the client can
// continue with those it has.
func TestRejectedAnswerLeavesNothing(t *testing.T) {
	for name, age := range map[string]time.Duration{"renewable": 2 * time.Hour, "expired": 25 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			b := newFaultBench(t)
			faultScenarios["renewal"](b)
			b.now = b.now.Add(age - 2*time.Hour)
			old := b.client.Held().MasterToken
			kept, live := b.server.Remembered(), b.live()
			for n, err := range []error{errors.New("no"), msl.ErrRejectUser, msl.ErrNoReply, msl.ErrEntityRevoked} {
				b.handle(func(context.Context, *msl.ResponseWriter, *msl.Message) error { return err })
				if b.send() == nil {
					t.Error("there was an answer")
				}
				if got := b.server.Remembered(); got != kept || b.live() != live {
					t.Errorf("after %d refusals: %d sessions, %d keys: want %d and %d", n+1, got, b.live(), kept, live)
				}
			}
			if held := b.client.Held().MasterToken; !bytes.Equal(held.Bytes(), old.Bytes()) {
				t.Fatal("the client has another token")
			}
			b.handle(echo)
			b.mustSend()
			if next := b.client.Held().MasterToken; next.SequenceNumber <= old.SequenceNumber || next.SerialNumber != old.SerialNumber {
				t.Errorf("token %d of %d after %d of %d", next.SequenceNumber, next.SerialNumber, old.SequenceNumber, old.SerialNumber)
			}
			b.mustSend()
		})
	}
}

func (b *faultBench) live() int {
	n, _ := b.store.Live()
	return n
}

// If the answer cannot be written, its session is not remembered.
func TestUndeliveredAnswerLeavesNothing(t *testing.T) {
	b := newFaultBench(t)
	b.client = b.pskClient("device")
	request := capture(t, b)
	if err := b.server.Serve(context.Background(), "test", bytes.NewReader(request), brokenWriter{}, b.handler); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
	b.psk.Close()
	if b.server.Remembered() != 0 || b.live() != 0 {
		t.Errorf("%d sessions, %d keys", b.server.Remembered(), b.live())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// capture returns the next message of the client, which gets no answer to it.
func capture(t *testing.T, b *faultBench) (message []byte) {
	t.Helper()
	b.intercept = func(m []byte) []byte {
		message = bytes.Clone(m)
		return []byte("{}")
	}
	if b.send() == nil {
		t.Error("there was an answer")
	}
	b.intercept = nil
	return message
}

// An application that calls Answerable does nothing for a message that is sent again
// with a key exchange, such as the second one that a new device sends while the first is
// in progress.
func TestAnswerableRunsOnce(t *testing.T) {
	b := newFaultBench(t)
	var mu sync.Mutex
	begun, ran := make(chan struct{}), 0
	b.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if err := w.Answerable(); err != nil {
			return err
		}
		mu.Lock()
		if ran++; ran == 1 {
			close(begun)
		}
		first := ran == 1
		mu.Unlock()
		if first {
			time.Sleep(50 * time.Millisecond) // the other message comes without a key exchange meanwhile
		}
		return echo(ctx, w, m)
	}
	c := b.pskClient("device")
	done := make(chan error, 2)
	ask := func() {
		_, _, err := send(t, c, &msl.Request{Encrypted: true, Body: msl.BytesBody([]byte("x"))})
		done <- err
	}
	go ask()
	<-begun
	go ask()
	if err := errors.Join(<-done, <-done); err != nil || ran != 2 {
		t.Errorf("ran %d for two messages: %v", ran, err)
	}
}

// An answer that can be neither protected nor replaced by an error message is another
// error than one that was not begun.
func TestAnswerLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaultBench(t)
		b.client = b.pskClient("device")
		fail := func(next msl.Handler) {
			b.handle(func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				b.store.watch(func(int, string) error { return keystore.ErrUnavailable })
				return next(ctx, w, m)
			})
		}
		start := time.Now()
		fail(func(context.Context, *msl.ResponseWriter, *msl.Message) error { return nil })
		if err := b.send(); !errors.Is(err, msl.ErrAnswerLost) || !errors.Is(err, msl.ErrNoAnswer) {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took < time.Second || took > 5*time.Second {
			t.Errorf("gave up after %v", took)
		}
		b.store.watch(nil)
		fail(func(context.Context, *msl.ResponseWriter, *msl.Message) error { return msl.ErrRejectUser })
		if err := b.send(); errors.Is(err, msl.ErrAnswerLost) || !errors.Is(err, msl.ErrNoAnswer) {
			t.Errorf("of an application that did nothing: %v", err)
		}
	})
}

// The end of the context ends the patience.
func TestPersistenceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaultBench(t)
		b.client = b.pskClient("device")
		request := capture(t, b)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		err := b.server.Serve(ctx, "test", bytes.NewReader(request), io.Discard, func(context.Context, *msl.ResponseWriter, *msl.Message) error {
			b.store.watch(func(int, string) error { return keystore.ErrBusy })
			return nil
		})
		if !errors.Is(err, msl.ErrAnswerLost) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// After a slow application, the header still has the time of the answer.
func TestSlowAnswerTellsTheTime(t *testing.T) {
	for _, took := range []time.Duration{0, time.Second, time.Minute} {
		b := newFaultBench(t)
		b.client = b.pskClient("device")
		b.mustSend()
		b.handle(func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			b.now = b.now.Add(took)
			return echo(ctx, w, m)
		})
		b.mustSend()
		if late := -b.client.ClockAhead(); late < 0 || late >= 2*time.Second {
			t.Errorf("an answer after %v is %v late", took, late)
		}
	}
}

// A failure of this side takes precedence over an error in another key request.
func TestOwnFailureCountsMore(t *testing.T) {
	b := newFaultBench(t)
	b.client = b.pskClient("device")
	b.directory["device"].KeyExchanges = []string{"SYMMETRIC_WRAPPED"}
	second := b.noneClient("other").KeyExchanges[0]
	b.client.KeyExchanges = append(b.client.KeyExchanges, second)
	b.store.watch(func(_ int, op string) error {
		if op == "Generate" {
			return fmt.Errorf("fault: %w", keystore.ErrUnavailable)
		}
		return nil
	})
	if err := b.send(); !transient(err) || b.ran != 0 {
		t.Errorf("ran %d, %v", b.ran, err)
	}
}
