package hsm

import (
	"cmp"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

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

// A connection is what a store has open in a module: pools of sessions, and the login
// to one token. When the token was lost and comes back, a new life begins.
type connection struct {
	library
	mod  *module
	uri  *URI
	wait time.Duration
	log  *slog.Logger
	done chan struct{} // closed by Close
	pin  *pin

	sessions, anchors *pool
	keeper            session  // stands for the recovery in the watch
	origins           sync.Map // of the open sessions, by handle
	graves            graves

	life    atomic.Pointer[life]      // nil while the sessions are not open
	stuck   atomic.Pointer[stuckCall] // that makes the store unavailable
	crowded atomic.Pointer[time.Time] // since when other programs hold the sessions that the pools were promised
	refused atomic.Pointer[error]     // the token's answer to a wrong PIN
	epoch   atomic.Uint64             // of the newest life that was begun
	serial  atomic.Pointer[string]    // of the token that was opened first
	open    atomic.Int64              // open sessions
	ticks   atomic.Int64              // of the watch, from 1
}

// newConnection returns a connection without sessions.
func newConnection(mod *module, uri *URI, config Config) *connection {
	c := &connection{
		library: newLibrary(mod.functions), mod: mod, uri: uri, wait: cmp.Or(max(config.Wait, 0), defaultWait),
		log: config.Log, done: make(chan struct{}),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
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
		token, err = c.choose()
		return err
	})
	if err != nil {
		return err
	}
	// Outside the module: it may wait for a person.
	if err := c.readPIN(config.PIN, token); err != nil {
		return err
	}
	working, anchors := limits(config.Sessions, token)
	c.sessions, c.anchors = newPool(working, false), newPool(anchors, true)
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
	for try := range 8 {
		if err = c.mod.inside(c.wait, op); !passing(err) {
			return err
		}
		time.Sleep(time.Duration(10+10*try+rand.IntN(20)) * time.Millisecond)
		if again := c.mod.restartAlone(c.wait); again != nil {
			return errors.Join(err, again)
		}
	}
	return err
}

// passing reports whether a failure to open a token may pass by itself. A wrong
// PIN never does.
func passing(err error) bool {
	var e *Error
	switch {
	case err == nil, errors.Is(err, errAmbiguousToken):
		return false
	case errors.As(err, &e):
		switch e.Code {
		case pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED,
			pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_DEVICE_ERROR:
			return true
		}
		return false
	}
	return errors.Is(err, keystore.ErrNotFound)
}

// limits divides the sessions that a token allows. A limit of 0 means no limit, and
// all ones that it is unknown (PKCS #11 v2.40, CK_TOKEN_INFO); openCryptoki uses one
// less than that for no limit.
func limits(wanted int, t tokenInfo) (working, anchors int) {
	working, anchors = wanted, 2
	if working <= 0 {
		working = 4
	}
	for _, limit := range []uint{t.MaxSessions, t.MaxRwSessions} {
		if limit == 0 || limit >= ^uint(0)-1 {
			continue
		}
		if limit < 4 {
			anchors = 1
		}
		working = max(1, min(working, int(limit)-anchors))
	}
	return working, anchors
}

// errAmbiguousToken is a URI that names several tokens.
var errAmbiguousToken = fmt.Errorf("several PKCS #11 tokens match: %w", keystore.ErrNotFound)

// choose finds the one token that the URI names: its slot changes when a module
// is initialized anew.
func (c *connection) choose() (tokenInfo, error) {
	all, untold, err := c.mod.tokens(false)
	if err != nil {
		return tokenInfo{}, err
	}
	var found []tokenInfo
	for _, t := range all {
		if c.uri.matches(t) {
			found = append(found, t)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return tokenInfo{}, fmt.Errorf("hsm: %s: %w (the module has %s); add ;serial= to the URI", c.uri, errAmbiguousToken, strings.Join(labels(found), ", "))
	case untold != nil:
		return tokenInfo{}, fmt.Errorf("hsm: no readable PKCS #11 token matches %s, and some cannot be read: %w", c.uri, untold)
	}
	return tokenInfo{}, &NoTokenError{URI: c.uri.String(), Tokens: labels(all)}
}

func labels(all []tokenInfo) []string {
	var names []string
	for _, t := range all {
		names = append(names, fmt.Sprintf("%q serial %s", t.Label, t.Serial))
	}
	return names
}

// readPIN reads the PIN where the token wants one and does not ask by itself.
func (c *connection) readPIN(source PINSource, token tokenInfo) error {
	if token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 || token.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0 {
		return nil
	}
	if source == "" {
		source = PINSource(c.uri.PINSource)
	}
	if source == "" {
		return fmt.Errorf("hsm: no PIN source for the PKCS #11 token %q: %w; name one, as file:/path or prompt", token.Label, keystore.ErrPIN)
	}
	var err error
	c.pin, err = source.read()
	return err
}

// start begins a new life: it finds the token, opens an anchor session and logs
// in. The other sessions are opened when they are needed, so that a call which never
// returns does not hold up the start.
func (c *connection) start() error {
	c.life.Store(nil)
	token, err := c.choose()
	if err != nil {
		return err
	}
	return c.startIn(token)
}

// startIn is start in a token that was just found.
func (c *connection) startIn(token tokenInfo) error {
	now := &life{epoch: c.epoch.Add(1), slot: token.slot, token: token, generation: c.mod.generation.Load()}
	if first := c.serial.Load(); first != nil && *first != token.Serial {
		return fmt.Errorf("hsm: the PKCS #11 token %q has the serial number %s, and had %s: %w: another token has taken its place", token.Label, token.Serial, *first, keystore.ErrUnavailable)
	}
	own, err := c.take(c.anchors)
	if err != nil {
		return err
	}
	defer c.anchors.put(own, true)
	if err := c.fill(own, now); err != nil {
		return err
	}
	if err := c.logIn(own.handle, token); err != nil {
		c.empty(own)
		return err
	}
	c.sweepOut(c.anchors, func(*session) bool { return true })
	for _, left := range c.graves.forget() {
		c.graves.closeLater(left)
	}
	c.serial.CompareAndSwap(nil, &token.Serial)
	c.life.Store(now)
	return nil
}

// sweepOut closes those of the sessions that are not in use now, with their objects.
func (c *connection) sweepOut(p *pool, such func(*session) bool) {
	for range p.all {
		select {
		case <-p.places:
			own := p.pop()
			if such(own) {
				c.empty(own)
			}
			defer p.put(own, true)
		default:
			return
		}
	}
}

// logIn logs in, which is for all sessions of the process. A PIN that was
// refused once is never given again: a token counts, and locks itself.
func (c *connection) logIn(session uint, token tokenInfo) error {
	if token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	if refused := c.refused.Load(); refused != nil {
		return *refused
	}
	err := c.login(session, pkcs11.CKU_USER, c.pin.bytes())
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.Code == pkcs11.CKR_USER_ALREADY_LOGGED_IN:
		return nil // by another store of this process; the PIN is not looked at
	case classOf(err) != classPIN:
		return err
	}
	notSet := e.Code == pkcs11.CKR_USER_PIN_NOT_INITIALIZED // so none was counted
	err = fmt.Errorf("%w; %s", err, c.triesLeft(token.slot))
	if !notSet {
		c.refused.Store(&err)
	}
	return err
}

// triesLeft says what the token tells after a wrong PIN.
func (c *connection) triesLeft(slot uint) string {
	info, err := c.tokenInfo(slot)
	switch {
	case err != nil:
		return "check the PIN before you try again"
	case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return "the PIN is LOCKED: the token's security officer has to set a new one"
	case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return "ONE try is left before the token locks the PIN"
	case info.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
		return "it was not tried again: the token counts wrong PINs and may lock"
	}
	return "it was not tried again: check the PIN"
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
	if now == nil || now.token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	in, err := c.loggedIn(session)
	if err == nil && !in {
		err = &Error{Function: "C_GetSessionInfo", Code: pkcs11.CKR_USER_NOT_LOGGED_IN}
	}
	return err
}
