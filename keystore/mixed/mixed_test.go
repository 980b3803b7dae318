package mixed_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/mixed"
)

// A device is a random number generator for tests.
type device func(p []byte) error

func (d device) Random(p []byte) error { return d(p) }

// counted returns a device no block of which repeats: it numbers calls and blocks.
func counted(calls *atomic.Int64) device {
	return func(p []byte) error {
		n := uint64(calls.Add(1))
		for i := 0; i+16 <= len(p); i += 16 {
			binary.BigEndian.PutUint64(p[i:], n)
			binary.BigEndian.PutUint64(p[i+8:], uint64(i))
		}
		return nil
	}
}

func TestRead(t *testing.T) {
	var calls atomic.Int64
	r := mixed.New(counted(&calls), 0)
	defer r.Close()
	seen := map[[16]byte]bool{}
	for range 100 {
		var b [16]byte
		if n, err := r.Read(b[:]); n != 16 || err != nil {
			t.Fatal(n, err)
		}
		if seen[b] {
			t.Fatal("the same bytes twice")
		}
		seen[b] = true
	}
	if n := calls.Load(); n != 4 {
		t.Errorf("%d calls into the device for 1600 bytes, want 4 of 512", n)
	}
	long := make([]byte, 10000)
	if n, err := r.Read(long); n != len(long) || err != nil || bytes.Contains(long, make([]byte, 16)) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
}

// TestFailures has a device fail in each way: no byte of the operating system alone is
// returned for it.
func TestFailures(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		device device
		want   error
	}{
		"error":     {func([]byte) error { return broken }, broken},
		"no RNG":    {func([]byte) error { return errors.ErrUnsupported }, errors.ErrUnsupported},
		"nothing":   {func([]byte) error { return nil }, mixed.ErrStuck},
		"short":     {func(p []byte) error { rand.Read(p[:len(p)-16]); return nil }, mixed.ErrStuck},
		"one block": {func(p []byte) error { copy(p, bytes.Repeat([]byte("0123456789abcdef"), len(p)/16)); return nil }, mixed.ErrStuck},
		"one answer": {func(p []byte) error {
			copy(p, bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuv"), len(p)/32))
			return nil
		}, mixed.ErrStuck},
		"all ones":    {func(p []byte) error { copy(p, bytes.Repeat([]byte{0xff}, len(p))); return nil }, mixed.ErrStuck},
		"unavailable": {func([]byte) error { return keystore.ErrUnavailable }, keystore.ErrUnavailable},
	} {
		r := mixed.New(c.device, 0)
		b := []byte("not random bytes")
		n, err := io.ReadFull(r, b)
		if n != 0 || !errors.Is(err, c.want) || !bytes.Equal(b, make([]byte, 16)) {
			t.Errorf("%s: %d bytes %x, %v", name, n, b, err)
		}
		r.Close()
	}
}

// TestSameTwice has a device that answers each call alike.
func TestSameTwice(t *testing.T) {
	var same [512]byte
	rand.Read(same[:])
	r := mixed.New(device(func(p []byte) error { copy(p, same[:]); return nil }), 0)
	defer r.Close()
	if _, err := r.Read(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, mixed.ErrStuck) {
			t.Errorf("the same answer again: %v", err)
		}
	}
}

// TestRecovers has a device that fails once, at its second call.
func TestRecovers(t *testing.T) {
	var calls atomic.Int64
	sound := counted(&calls)
	r := mixed.New(device(func(p []byte) error {
		if calls.Load() == 1 {
			calls.Add(1)
			return keystore.ErrUnavailable
		}
		return sound(p)
	}), 0)
	defer r.Close()
	all := make([]byte, 512)
	if _, err := r.Read(all); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(all); !errors.Is(err, keystore.ErrUnavailable) {
		t.Error(err)
	}
	if _, err := r.Read(all); err != nil {
		t.Error(err)
	}
}

// TestHangs has a device that does not return: nobody waits longer than allowed, and who
// comes when that time is over not at all.
func TestHangs(t *testing.T) {
	release := make(chan struct{})
	var calls atomic.Int64
	r := mixed.New(device(func(p []byte) error { calls.Add(1); <-release; rand.Read(p); return nil }), 30*time.Millisecond)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := r.Read(make([]byte, 16)); !errors.Is(err, mixed.ErrLate) || !errors.Is(err, keystore.ErrUnavailable) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	start := time.Now()
	for range 1000 {
		if _, err := r.Read(make([]byte, 16)); !errors.Is(err, mixed.ErrLate) {
			t.Error(err)
		}
	}
	if took := time.Since(start); took > 1000*30*time.Millisecond/2 || calls.Load() != 1 {
		t.Errorf("1000 reads took %v, with %d calls", took, calls.Load())
	}
	close(release)
	for { // the late answer is used
		if _, err := r.Read(make([]byte, 16)); err == nil {
			break
		}
	}
	r.Close()
}

func TestConcurrent(t *testing.T) {
	r := mixed.New(device(func(p []byte) error { rand.Read(p); return nil }), 0)
	var seen sync.Map
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				var b [16]byte
				if _, err := r.Read(b[:]); err != nil {
					t.Error(err)
				}
				if _, twice := seen.LoadOrStore(b, true); twice {
					t.Error("the same bytes twice")
				}
			}
		})
	}
	all.Wait()
	r.Close()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, keystore.ErrClosed) {
		t.Error(err)
	}
}

// TestCloseWhileFilling has a Reader closed before the device returns.
func TestCloseWhileFilling(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{})
	r := mixed.New(device(func(p []byte) error { close(entered); <-release; rand.Read(p); return nil }), 0)
	got := make(chan error)
	go func() { _, err := r.Read(make([]byte, 16)); got <- err }()
	<-entered
	r.Close()
	close(release)
	if err := <-got; !errors.Is(err, keystore.ErrClosed) {
		t.Error(err)
	}
}
