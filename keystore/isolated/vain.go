package isolated

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
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
		if !p.vain.worked.Load() {
			p.vain.worked.Store(true)
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
	limit := p.limit << min(p.vain.length(), mostDoubled)
	if errors.Is(err, keystore.ErrUnclear) { // the next child gives the PIN again at once
		limit = max(limit, keystore.PINPause(math.MaxInt))
	}
	if long := now.Sub(f.since); long > limit {
		p.vain.ended.Store(true)
		p.end(fmt.Sprintf("has answered nothing but failures of its device for %v", long.Round(time.Second/10)))
	}
}

// A vainRow is how a child continues the row of those that were ended because their device only
// failed.
type vainRow struct {
	before int         // in the row
	worked atomic.Bool // its device has done something
	ended  atomic.Bool // it is one of the row
}

// length returns how long the row is with this child. Those that ended otherwise do not interrupt it,
// unless their device did something.
func (r *vainRow) length() int {
	n := r.before
	if r.worked.Load() {
		n = 0
	}
	if r.ended.Load() {
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
