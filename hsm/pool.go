package hsm

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstSessions = 4   // that operations may use at a time before a load has asked for more
	mostSessions  = 128 // that they come to use, unless Config.Sessions says otherwise
	firstAnchors  = 2
	mostAnchors   = 16
	restTime      = time.Minute // after which sessions that no load needed are closed
)

// A pool bounds the sessions that operations use at a time. The session given back
// last is taken first, so that no more are opened than needed and they stay in the
// processor's cache. A session that failed is taken last.
//
// The bound follows the load. It rises while callers wait for a session, the module is
// slow, and its answers come as quickly as if it were alone: then it does more at the
// same time if it is asked to.
type pool struct {
	first  int // the least bound
	all    []*session
	handed chan *session // to the callers that wait
	// anchor sessions make objects, which die with them: such a session is kept after a
	// failure. That is safe, because the calls on it leave no operation active.
	anchor bool
	gains  func() bool               // whether the module does more at the same time if it is asked to
	dry    atomic.Pointer[time.Time] // since when a caller has been waiting for a session, or nil

	mu      sync.Mutex
	free    []*session
	waiting int        // callers to whom no session was handed yet
	spare   []*session // beyond the bound
	used    int        // times that a session was given back since the bound rose
	least   int        // free at a time since the last rest
	denied  time.Time  // when the token had no more sessions
}

// newPool makes a pool of first sessions that may become most.
func newPool(first, most int, anchor bool, gains func() bool) *pool {
	p := &pool{handed: make(chan *session, most), first: min(first, most), anchor: anchor, gains: gains}
	for range most {
		p.all = append(p.all, &session{})
	}
	p.spare = slices.Clone(p.all)
	for range p.first {
		p.put(p.popSpare(), true)
	}
	p.used = 0
	return p
}

// put gives a session back: to a caller that waits, if there is one.
func (p *pool) put(own *session, sound bool) {
	p.mu.Lock()
	p.used++
	switch {
	case p.waiting > 0:
		p.waiting--
		p.handed <- own // there is room for all
	case sound:
		p.free = append(p.free, own)
	default:
		p.free = slices.Insert(p.free, 0, own)
	}
	p.mu.Unlock()
	if p.dry.Load() != nil {
		p.dry.Store(nil)
	}
}

// pop returns a session that is free, or nil.
func (p *pool) pop() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.popFree()
}

// popFree is pop for a caller that holds p.mu.
func (p *pool) popFree() *session {
	last := len(p.free) - 1
	if last < 0 {
		return nil
	}
	own := p.free[last]
	p.free = p.free[:last]
	p.least = min(p.least, last)
	return own
}

// popOrWait is pop, and where it returns nil the caller waits for what is handed to it.
func (p *pool) popOrWait() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.popFree()
	if own == nil {
		p.waiting++
	}
	return own
}

// stopWaiting ends what popOrWait began. A session that is handed over by now is the
// caller's.
func (p *pool) stopWaiting() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case own := <-p.handed:
		return own
	default:
		p.waiting--
		return nil
	}
}

func (p *pool) popSpare() *session {
	last := len(p.spare) - 1
	own := p.spare[last]
	p.spare = p.spare[:last]
	return own
}

// grow raises the bound by one for a caller who would wait, and gives it the session; or
// returns nil. The next rise waits until every session was used once, so that what
// came of this one is known.
func (p *pool) grow() *session {
	if !p.gains() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spare) == 0 || p.used < p.bound() || time.Since(p.denied) < restTime {
		return nil
	}
	p.used, p.least = 0, 0
	return p.popSpare()
}

// drop lowers the bound by the caller's session, which the token did not open, unless it
// is at its least.
func (p *pool) drop(own *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.denied = time.Now()
	if p.bound() <= p.first {
		return false
	}
	p.spare = append(p.spare, own)
	return true
}

// surplus lowers the bound by the sessions that no load has needed since it was called
// last, and returns them to be closed.
func (p *pool) surplus() (idle []*session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(p.least, p.bound()-p.first, len(p.free)) // some may be in use now
	idle, p.free = slices.Clone(p.free[:n]), slices.Delete(p.free, 0, n)
	p.least = len(p.free)
	return idle
}

// shelve puts sessions that were closed beyond the bound.
func (p *pool) shelve(closed []*session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spare = append(p.spare, closed...)
}

// bound is how many sessions may be in use. The caller holds p.mu.
func (p *pool) bound() int { return len(p.all) - len(p.spare) }

func (p *pool) granted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bound()
}

// busy counts the sessions that operations hold.
func (p *pool) busy() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bound() - len(p.free)
}

// rest closes the sessions that are not needed any more, again and again until the store
// is closed: a token has them for other programs, too. It also does what is not urgent.
func (c *connection) rest(also func()) {
	ticker := time.NewTicker(restTime)
	defer ticker.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-ticker.C:
			c.closeSurplus()
			also()
		}
	}
}

// closeSurplus closes what no load has needed since it was called last. Anchor sessions
// stay, since objects die with them.
func (c *connection) closeSurplus() {
	if !c.mod.gate.enter(c.wait) {
		return
	}
	defer c.mod.gate.leave()
	idle := c.sessions.surplus()
	for _, own := range idle {
		if !c.isClosed() {
			c.watch.begin(own)
			c.empty(own)
			own.since.Store(0)
		}
	}
	c.sessions.shelve(idle)
}
