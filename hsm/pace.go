package hsm

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

const (
	paceData   = 4 << 10 // longer operations say less about the way to the module
	paceEvery  = 16      // of a fast module, one operation in so many is timed: to ask the clock costs
	paceWindow = time.Minute
	slowPace   = 100 * time.Microsecond // a slower module is waited for, not computed with
)

// A pace is how long operations with session keys take in a module: of one or two calls
// each. The least is what the way there and back takes, whatever else the module does
// meanwhile.
type pace struct {
	count atomic.Uint32
	least atomic.Int64 // in nanoseconds, of this window and the one before; 0 at first
	usual atomic.Int64 // in nanoseconds, a moving average

	mu            sync.Mutex
	since         time.Time // when the window began
	window, older time.Duration
}

// begin returns when an operation began if it is to be timed, or the zero time.
func (p *pace) begin(mechanism uint, size int) time.Time {
	switch mechanism {
	case pkcs11.CKM_AES_CBC, pkcs11.CKM_SHA256_HMAC, pkcs11.CKM_AES_CMAC:
	default:
		return time.Time{}
	}
	least := p.least.Load()
	if size > paceData || p.count.Add(1)%paceEvery != 0 && least > 0 && least < int64(slowPace) {
		return time.Time{}
	}
	return time.Now()
}

// end notes an operation that worked.
func (p *pace) end(start time.Time) {
	if start.IsZero() {
		return
	}
	took := max(time.Since(start), 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() || start.Sub(p.since) > paceWindow {
		p.since, p.older, p.window = start, p.window, took
	}
	p.window = min(p.window, took)
	least := p.window
	if p.older > 0 {
		least = min(least, p.older)
	}
	p.least.Store(int64(least))
	usual := p.usual.Load()
	if usual == 0 {
		usual = int64(took)
	}
	p.usual.Store(usual + (int64(took)-usual)/8)
}

// forget is for a new life, in which another device may answer.
func (p *pace) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.window, p.older = time.Time{}, 0, 0
	p.least.Store(0)
	p.usual.Store(0)
}

// gains reports whether the module is likely to do more if it gets more to do at the same
// time: calls are waited for, and take hardly longer than one alone would.
func (p *pace) gains() bool {
	least := p.least.Load()
	return least >= int64(slowPace) && p.usual.Load() < 2*least
}
