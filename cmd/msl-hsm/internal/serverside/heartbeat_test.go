package serverside

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A fakeKey answers as configured.
type fakeKey struct {
	keystore.MAC
	uses atomic.Int32
	hang chan struct{} // until it is closed, or nil
	err  error
}

func (k *fakeKey) Sum([]byte) ([]byte, error) {
	k.uses.Add(1)
	if k.hang != nil {
		<-k.hang
	}
	return nil, k.err
}

func TestHeartbeat(t *testing.T) {
	k := &fakeKey{err: keystore.ErrUnavailable}
	h := heartbeat{sum: k.Sum}
	for range 100 {
		if err := h.beat(t.Context()); !errors.Is(err, keystore.ErrUnavailable) {
			t.Fatalf("a device that is away: %v", err)
		}
	}
	if n := k.uses.Load(); n > 2 {
		t.Errorf("who asks 100 times occupies the device %d times", n)
	}
}

// TestHeartbeatHangs asks a device that does not answer: nobody waits for it for long, and
// it is asked once.
func TestHeartbeatHangs(t *testing.T) {
	k := &fakeKey{hang: make(chan struct{})}
	h := heartbeat{sum: k.Sum}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for range 10 {
		if err := h.beat(ctx); err == nil || !strings.Contains(err.Error(), "has not answered for") {
			t.Errorf("a device that hangs: %v", err)
		}
	}
	if n := k.uses.Load(); n != 1 {
		t.Errorf("it is asked %d times", n)
	}
	close(k.hang)
	if err := h.beat(t.Context()); err != nil {
		t.Errorf("it answers again: %v", err)
	}
}

// TestHeartbeatSlow asks a device that takes a little longer than anybody waits: whoever asks
// late gets the same verdict as the first.
func TestHeartbeatSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKey{hang: make(chan struct{})}
		h := heartbeat{sum: k.Sum}
		time.AfterFunc(patience+time.Millisecond, func() { close(k.hang) })
		go h.beat(t.Context())
		time.Sleep(patience / 2)
		if err := h.beat(t.Context()); err == nil || !strings.Contains(err.Error(), "took 2.001s to sign: check the HSM") {
			t.Errorf("asked later: %v", err)
		}
		time.Sleep(2 * fresh)
		if err := h.beat(t.Context()); err != nil {
			t.Errorf("it is quick again: %v", err)
		}
	})
}

// TestHeartbeatLeft is asked by somebody who goes away before the device answers, again and again:
// that says nothing about the device.
func TestHeartbeatLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := heartbeat{sum: func([]byte) ([]byte, error) { time.Sleep(time.Millisecond); return nil, nil }}
		left, cancel := context.WithCancel(t.Context())
		cancel()
		for range 10 {
			if err := h.beat(left); err == nil {
				t.Error("the answer came at once")
			}
			time.Sleep(2 * fresh)
			if err := h.beat(t.Context()); err != nil {
				t.Errorf("who waits is told: %v", err)
			}
			time.Sleep(2 * fresh)
		}
	})
}

// TestHeartbeatAlternates has the device fail each second time that it is asked.
func TestHeartbeatAlternates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		h := heartbeat{sum: func([]byte) ([]byte, error) {
			if asked++; asked%2 == 0 && asked < 200 {
				return nil, errors.New("C_Sign: CKR_DEVICE_ERROR")
			}
			return nil, nil
		}}
		changes, ready := 0, true
		for range 300 {
			time.Sleep(2 * fresh)
			if now := h.beat(t.Context()) == nil; now != ready {
				ready, changes = now, changes+1
			}
		}
		if changes > 4 || !ready {
			t.Errorf("%d changes; ready at the end: %t", changes, ready)
		}
	})
}
