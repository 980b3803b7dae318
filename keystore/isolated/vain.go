package isolated

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A vainTime is one in which the device has only failed.
type vainTime struct{ since, last time.Time }

// mostApart is how long after each other two failures may come that are one: of an idle device
// nothing is known meanwhile.
const mostApart = time.Minute

// mostDoubled bounds how often the time doubles in which a device may only fail: to four minutes, with
// the default limit.
const mostDoubled = 4

// note ends a child whose device has only failed for as long as a call may take: some libraries
// find their device again only in another process. If that did not help, the next one has twice the
// time, since each costs a login and the session keys that are not sealed.
func (p *process) note(op operation, err error) {
	switch {
	case err == nil && op.needsDevice():
		if p.failing.Load() != nil {
			p.failing.Store(nil)
		}
		if !p.worked.Load() {
			p.worked.Store(true)
		}
		return
	case !deviceFailed(err):
		return
	}
	now := time.Now()
	f := vainTime{now, now}
	if before := p.failing.Load(); before != nil && now.Sub(before.last) < max(mostApart, p.limit) {
		f.since = before.since
	}
	p.failing.Store(&f)
	limit := p.limit << min(p.vain, mostDoubled)
	if errors.Is(err, keystore.ErrUnclear) { // the next child gives the PIN again at once
		limit = max(limit, keystore.PINPause(math.MaxInt))
	}
	if long := now.Sub(f.since); long > limit {
		p.inVain.Store(true)
		p.end(fmt.Sprintf("has answered nothing but failures of its device for %v", long.Round(time.Second/10)))
	}
}

// vainAfter returns how many children in a row, up to this one, were ended because their device only
// failed. Those that ended otherwise do not interrupt the row, unless their device did something.
func (p *process) vainAfter() int {
	n := p.vain
	if p.worked.Load() {
		n = 0
	}
	if p.inVain.Load() {
		n++
	}
	return n
}

// needsDevice reports whether an operation that works shows that the device does: others may be
// answered from memory.
func (o operation) needsDevice() bool {
	switch o {
	case opGenerate, opSeal, opUnseal, opImport, opWrapFor, opRandom, opWrap, opWrapData, opUnwrap, opReveal, opSign, opDecryptPair:
		return true
	}
	return o.isPartOfMessage()
}

// deviceFailed reports whether an error is one that another process may not have. Of a refused PIN
// it is not: each start gives it again.
func deviceFailed(err error) bool {
	for _, other := range []error{keystore.ErrPIN, keystore.ErrBusy, keystore.ErrLocked, keystore.ErrLost, errors.ErrUnsupported} {
		if errors.Is(err, other) {
			return false
		}
	}
	return errors.Is(err, keystore.ErrUnavailable)
}
