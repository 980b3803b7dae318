package mixed

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

const (
	stock       = 512 // bytes of the device that are asked for at a time
	defaultWait = 10 * time.Second
)

// ErrStuck means that the device returned bytes that cannot be random: zeros, or the same
// 16 bytes twice. It is a [keystore.ErrUnavailable].
var ErrStuck = fmt.Errorf("mixed: the random bytes of the device repeat, or it returned fewer than asked for: check the device: %w", keystore.ErrUnavailable)

// ErrLate means that the device did not return random bytes in time. It is a
// [keystore.ErrUnavailable].
var ErrLate = fmt.Errorf("mixed: the device has not returned random bytes in time: %w", keystore.ErrUnavailable)

// A Reader returns the random bytes of two sources combined. It is an io.Reader that is
// safe for use by many goroutines. Read fails, and never falls back to one source, while
// the device does.
type Reader struct {
	device keystore.RandomSource
	wait   time.Duration

	mu     sync.Mutex
	closed bool
	memory *lockedmem.Buffer // of the device
	left   []byte            // that part of memory which was not used yet
	before map[digest]bool   // of the blocks that the device returned last
	call   *refill           // under way, or nil
}

// A refill is a call into the device. It runs on a goroutine of its own, since it may
// never return.
type refill struct {
	began time.Time
	done  chan struct{} // closed at its end
	err   error         // then
}

// New returns a Reader of the device. No Read waits longer for it than wait; zero means 10
// seconds. Close the Reader before the device.
func New(device keystore.RandomSource, wait time.Duration) *Reader {
	return &Reader{device: device, wait: cmp.Or(wait, defaultWait)}
}

// Read fills p. After an error p holds zeros. The error is [ErrLate], [ErrStuck],
// [keystore.ErrClosed], or that of the device.
func (r *Reader) Read(p []byte) (int, error) {
	end := time.Now().Add(r.wait)
	rand.Read(p) // never fails
	for rest := p; len(rest) > 0; {
		n, call, err := r.mix(rest)
		if err == nil && n == 0 {
			err = call.finish(end, r.wait)
		}
		if err != nil {
			clear(p)
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// mix combines p with bytes of the device, as far as there are any. Where there are none,
// it returns the call that gets more.
func (r *Reader) mix(p []byte) (int, *refill, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, nil, fmt.Errorf("mixed: %w", keystore.ErrClosed)
	}
	if len(r.left) > 0 {
		n := subtle.XORBytes(p, p, r.left[:min(len(p), len(r.left))])
		clear(r.left[:n])
		r.left = r.left[n:]
		return n, nil, nil
	}
	if r.call == nil {
		r.call = &refill{began: time.Now(), done: make(chan struct{})}
		go r.fill(r.call)
	}
	return 0, r.call, nil
}

// finish waits for the call until end, but no longer than a call may take.
func (c *refill) finish(end time.Time, most time.Duration) error {
	if late := c.began.Add(most); late.Before(end) {
		end = late
	}
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	select {
	case <-c.done:
		return c.err
	case <-timer.C:
		return ErrLate
	}
}

// fill gets bytes of the device.
func (r *Reader) fill(c *refill) {
	fresh := lockedmem.New(stock)
	err := r.device.Random(fresh.Bytes())
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		err = r.judge(fresh.Bytes())
	}
	if err == nil && !r.closed {
		r.memory.Close()
		r.memory, r.left = fresh, fresh.Bytes()
	} else {
		fresh.Close()
	}
	r.call, c.err = nil, deviceError(err)
	close(c.done)
}

// deviceError says whose error it is. A device that has no generator cannot do what it
// was chosen for.
func deviceError(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("mixed: the device has no random number generator: %w", err)
	}
	return err
}

// blockSize is how much two sound blocks never have in common (2^-128).
const blockSize = 16

// A digest stands for a block that is not kept.
type digest [sha256.Size]byte

// judge refuses what a generator returns that is stuck, or that wrote less than it said:
// a block of zeros, or one that it returned before, in this call or the one before it
// (NIST SP 800-90B section 4.4.1 has the like for the source below). A device may return
// many blocks in one answer, and that answer again.
func (r *Reader) judge(b []byte) error {
	now := make(map[digest]bool, len(b)/blockSize)
	for ; len(b) >= blockSize; b = b[blockSize:] {
		d := sha256.Sum256(b[:blockSize])
		if [blockSize]byte(b) == [blockSize]byte{} || now[d] || r.before[d] {
			return ErrStuck
		}
		now[d] = true
	}
	r.before = now
	return nil
}

// Close overwrites the unused bytes. Read returns [keystore.ErrClosed] afterwards. It does
// not wait for a call into the device that is in progress.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.left = true, nil
	r.memory.Close()
	return nil
}
