package hsm

import (
	"cmp"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A life is the time from one opening of the token to the next. A handle is valid
// only in the life in which it was obtained.
type life struct {
	epoch      uint64 // grows from life to life
	slot       uint
	token      tokenInfo
	generation uint64 // of the module

	objects atomic.Int64 // session objects that are alive
}

// A connection is what a store has open in a module: pools of sessions with one token.
// When the token was lost and comes back, a new life begins.
type connection struct {
	library
	mod    *module
	access access
	watch  watch
	wait   time.Duration
	log    *slog.Logger
	told   func(keystore.Call) // receives each operation; or nil
	done   chan struct{}       // closed by Close

	sessions, anchors *pool
	origins           sync.Map // of the open sessions, by handle
	graves            graves

	life    atomic.Pointer[life]      // nil while the sessions are not open
	crowded atomic.Pointer[time.Time] // since when other programs have held sessions that the pools count on
	epoch   atomic.Uint64             // of the newest life that was begun
	open    atomic.Int64              // open sessions
}

// newConnection returns a connection without sessions.
func newConnection(mod *module, uri *URI, config Config) *connection {
	c := &connection{
		library: newLibrary(mod.functions), mod: mod, wait: cmp.Or(max(config.Wait, 0), defaultWait),
		log: config.Log, told: config.Calls, done: make(chan struct{}),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.access.library, c.access.mod, c.access.uri, c.access.noted = c.library, mod, uri, config.Login
	c.graves.conn, c.graves.name = c, cryptorand.Text()[:8]
	return c
}

func (c *connection) isClosed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// begin finds the token, reads the PIN and opens the first session.
func (c *connection) begin(config Config) error {
	var token tokenInfo
	err := c.patiently(func() (err error) {
		token, err = c.access.choose()
		return err
	})
	if err != nil {
		return err
	}
	// Outside the module: it may wait for a person.
	if err := c.access.readPIN(config.PIN, token); err != nil {
		return err
	}
	working, anchors := limits(config.Sessions, token)
	c.sessions = newPool(firstSessions, working, false, c.pace.Gains)
	if c.anchors = c.sessions; anchors > 0 {
		c.anchors = newPool(firstAnchors, anchors, true, c.pace.Gains)
	}
	return c.patiently(func() error {
		if c.epoch.Load() > 0 {
			return c.start() // again: the token may be in another slot
		}
		return c.startIn(token)
	})
}

// patiently runs op as a call into the module, and again for a moment where it
// fails in a way that another program may cause: while one logs in to a SoftHSM
// token, others see no token, one without a PIN, or nothing at all.
func (c *connection) patiently(op func() error) error {
	var err error
	logins := 0
	for try := range 8 {
		if err = c.mod.inside(c.wait, op); !passing(err) {
			return err
		}
		if errors.Is(err, keystore.ErrUnclear) {
			logins++
		}
		if logins == mostLogins {
			return fmt.Errorf("%w, %d times; the PIN is not given again, since it may be wrong and the token may count", err, logins)
		}
		pause := 10 + 10*try
		if logins > 0 {
			pause = 150 // the next one is the last
		}
		time.Sleep(time.Duration(pause+rand.IntN(20+pause)) * time.Millisecond)
		if again := c.mod.restartAlone(c.wait); again != nil {
			return errors.Join(err, again)
		}
	}
	return err
}

// mostLogins is how often a PIN is given that no answer says is wrong. Some tokens lock after three.
const mostLogins = 2

// passing reports whether a failure to open a token may be temporary. A wrong PIN never
// does.
func passing(err error) bool {
	var e *Error
	switch {
	case err == nil, errors.Is(err, errAmbiguousToken):
		return false
	case errors.As(err, &e):
		return !e.counted && (quirkLogin.has(e.Code) || quirkMemory.has(e.Code))
	}
	return errors.Is(err, keystore.ErrNotFound)
}

// limits divides the sessions that a token allows into those for operations, of which
// wanted bounds the number unless it is 0, and the anchors. A limit of 0 means no limit,
// and all ones that it is unknown (PKCS #11 v2.40, CK_TOKEN_INFO); openCryptoki uses one
// less than that for no limit. A token with one session has no anchors: that session is used
// for everything, and what it made is lost where the session or the device fails.
func limits(wanted int, t tokenInfo) (working, anchors int) {
	working = wanted
	if working <= 0 {
		working = mostSessions
	}
	anchors = min(max(working/8, firstAnchors), mostAnchors)
	for _, limit := range []uint{t.MaxSessions, t.MaxRwSessions} {
		if limit == 0 || limit >= ^uint(0)-1 {
			continue
		}
		switch anchors = min(anchors, max(int(limit/8), firstAnchors)); {
		case limit == 1:
			return 1, 0
		case limit < 4:
			anchors = 1
		}
		working = max(1, min(working, int(limit)-anchors))
	}
	return working, anchors
}

// start begins a new life: it finds the token, opens an anchor session and logs
// in. The other sessions are opened when they are needed, so that a call which never
// returns does not hold up the start.
func (c *connection) start() error {
	c.life.Store(nil)
	token, err := c.access.choose()
	if err != nil {
		return err
	}
	return c.startIn(token)
}

// startIn is start in a token that was just found.
func (c *connection) startIn(token tokenInfo) error {
	now := &life{epoch: c.epoch.Add(1), slot: token.slot, token: token, generation: c.mod.generation.Load()}
	if err := c.access.checkSame(token); err != nil {
		return err
	}
	own, err := c.take(c.anchors)
	if err != nil {
		return err
	}
	defer c.anchors.put(own, true)
	if err := c.fill(own, now); err != nil {
		return err
	}
	c.watch.keeper.shown.Store(uint64(own.handle))
	defer c.watch.keeper.shown.Store(0)
	err = c.access.logIn(own.handle, token)
	if err == nil {
		err = c.access.checkLogin(own.handle, token)
	}
	if err != nil {
		c.empty(own)
		return err
	}
	c.sweepOut(c.anchors, func(*session) bool { return true })
	for _, left := range c.graves.forget() {
		c.graves.closeLater(left)
	}
	c.access.serial.CompareAndSwap(nil, &token.Serial)
	c.pace.Forget()
	c.life.Store(now)
	return nil
}

// sweepOut closes those of the sessions that are not in use now, with their objects.
func (c *connection) sweepOut(p *pool, such func(*session) bool) {
	for range p.all {
		own := p.pop()
		if own == nil {
			return
		}
		if such(own) {
			c.empty(own)
		}
		defer p.put(own, true)
	}
}

// lifeOf returns the life of that epoch, to which the handles of an operation belong,
// unless it has ended meanwhile.
func (c *connection) lifeOf(epoch uint64) (*life, error) {
	now := c.life.Load()
	if now == nil || now.epoch != epoch {
		return nil, &Error{stale: true, epoch: epoch}
	}
	return now, nil
}

// checkLogin returns an error if the session is not logged in: some modules then give
// any answer.
func (c *connection) checkLogin(session uint) error {
	now := c.life.Load()
	if now == nil {
		return nil
	}
	return c.access.checkLogin(session, now.token)
}
