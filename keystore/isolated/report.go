package isolated

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Reporter is how a store in the child reaches the parent.
type Reporter struct {
	Log   *slog.Logger        // whose lines the parent logs
	Calls func(keystore.Call) // to be called for each operation of the device, from any goroutine
	// Login is to be called to give a PIN to the device, which give does, once: it returns the
	// error of give. So a child that ends meanwhile counts as an unclear answer.
	Login func(give func() error) error
}

// A Device is what a store holds in its device at one moment.
type Device struct {
	Open    int    `json:"open"` // sessions
	InUse   int    `json:"in_use"`
	Objects int    `json:"objects"` // that live in them
	Epoch   uint64 `json:"epoch"`   // how often the sessions were opened anew
	// Stuck names what does not return from the device. The child is replaced then.
	Stuck string `json:"stuck,omitempty"`
}

// A Described store in the child tells what it holds, without a call into the device.
type Described interface{ Device() Device }

const (
	reportPeriod = 250 * time.Millisecond
	maxCalls     = 64 << 10 // bytes of calls that wait to be told; further ones are left out
)

// A report gathers what the child reports about its device, so that a call costs little more
// than its measurement.
type report struct {
	to *eventWriter

	mu    sync.Mutex
	calls message
}

// add notes a call.
func (r *report) add(c keystore.Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.calls) > maxCalls {
		return
	}
	text := ""
	if c.Err != nil {
		text = c.Err.Error()
	}
	r.calls = r.calls.text(c.Function).number(uint64(c.Queue)).number(uint64(c.Run)).number(kindsOf(c.Err)).text(text)
}

// taken returns the calls since it was called last.
func (r *report) taken() (calls message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls, r.calls = r.calls, nil
	return calls
}

// run tells the parent of calls, and of what the store holds when that has changed, until
// done is closed.
func (r *report) run(store keystore.Store, done <-chan struct{}) {
	described, _ := store.(Described)
	ticker := time.NewTicker(reportPeriod)
	defer ticker.Stop()
	var told Device
	for {
		e := event{Calls: r.taken()}
		if described != nil {
			if now := described.Device(); now != told {
				told, e.Device = now, &now
			}
		}
		if len(e.Calls) > 0 || e.Device != nil {
			_ = r.to.write(e) // a parent that is gone needs no report
		}
		select {
		case <-done:
			return
		case <-ticker.C:
		}
	}
}

// maxFunctions bounds the functions that a child can report: each becomes the name of a series
// of measurements. PKCS #11 has fewer.
const maxFunctions = 128

// told is what a child has told.
type told struct {
	device    atomic.Pointer[Device] // what its store held last, or nil
	functions map[string]bool        // of the device; for the goroutine that listens
	login     atomic.Bool            // it is giving the PIN
}

// unopened is the error of a child that has not said whether its store is open. The device may have
// counted a PIN to which it did not answer.
func (t *told) unopened(what string) error {
	if t.login.Load() {
		return keystore.Unclear(fmt.Errorf("isolated: %s, while the PIN was given: %w", what, keystore.ErrUnavailable))
	}
	return fmt.Errorf("isolated: %s: %w", what, keystore.ErrUnavailable)
}

// tell gives the calls in a report to those who measure.
func (t *told) tell(calls []byte, to func(keystore.Call)) {
	f := &fields{rest: calls}
	for to != nil && len(f.rest) > 0 {
		call := keystore.Call{Function: f.text(), Queue: time.Duration(f.number()), Run: time.Duration(f.number())}
		if set, text := f.number(), f.text(); set != 0 || text != "" {
			call.Err = newChildError(text, set)
		}
		if t.functions[call.Function] = true; f.bad || call.Queue < 0 || call.Run < 0 || !isFunction(call.Function) || len(t.functions) > maxFunctions {
			return
		}
		to(call)
	}
}

// isFunction reports whether a text can be the name of a function.
func isFunction(name string) bool {
	for _, c := range []byte(name) {
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return len(name) <= 32
}

// Device returns what the store held in its device when the child told of it last; false if
// it has not, or there is no child now.
func (s *Store) Device() (Device, bool) {
	p, _, _ := s.look()
	if p == nil {
		return Device{}, false
	}
	told := p.device.Load()
	if told == nil {
		return Device{}, false
	}
	now := *told
	now.Epoch += p.generation - 1
	return now, true
}

// heard takes what the child tells while its store is open.
func (p *process) heard(e event, c *Config) {
	if e.Log != nil {
		e.Log.tell(c.log())
	}
	if e.Device != nil {
		p.device.Store(e.Device)
		if stuck := e.Device.Stuck; stuck != "" && isFunction(stuck) {
			p.giveUp("does not return from " + stuck)
		}
	}
	if e.Login != nil {
		p.login.Store(*e.Login)
	}
	p.tell(e.Calls, c.Calls)
}
