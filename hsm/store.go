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
	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Config says which PKCS #11 token to open, and how. The zero value of every
// field but URI has a default.
type Config struct {
	// URI names the module and the token (RFC 7512): by label, by serial
	// number or both.
	URI string
	// PIN is where the user PIN comes from. The default is the pin-source of
	// the URI.
	PIN PINSource
	// Sessions bounds the PKCS #11 sessions that work at a time, and so the
	// threads that wait for the module. The default is 4. A token's own limit
	// holds too.
	Sessions int
	// Wait bounds the wait for one of them. The default is 5 seconds.
	Wait time.Duration
	// SealPrefix is the first part of the labels of the sealing keys, see
	// [keystore.SealingRoles]. The default is [keystore.DefaultPrefix].
	SealPrefix string
	// CallTimeout is how long a call into the module may take. While one takes
	// longer the store is unavailable: operations answer keystore.ErrUnavailable
	// at once, until it returns. The making of a key pair may take twelve times as
	// long. The default is 10 seconds.
	CallTimeout time.Duration
	// Log is told when the device is lost and when it is back. Nil means nobody.
	Log *slog.Logger
	// AllowWeak names weaknesses of keys and failed checks of the module that
	// the store must live with. The names are those of Weaknesses.
	AllowWeak []string
}

const (
	defaultWait        = 5 * time.Second
	defaultCallTimeout = 10 * time.Second
)

// A Store is the keys of one PKCS #11 token. It is a [keystore.Store],
// [keystore.Importer], [keystore.PeerWrapper] and [keystore.Admin].
type Store struct {
	library
	mod       *module
	uri       *URI
	wait      time.Duration
	prefix    string
	allow     []string
	log       *slog.Logger
	templates map[keystore.Algorithm]sessionTemplates

	sessions, anchors *pool
	keeper            session       // stands for the recovery in the watch
	done              chan struct{} // closed by Close
	closing           sync.Once
	recovery          recovery
	rings             rings
	graves            graves
	origins           sync.Map      // of the open sessions, by handle
	name              string        // begins the CKA_ID of its session objects
	made              atomic.Uint64 // how many it made
	admin             lock          // held while provisioned keys change
	pin               *pin

	life           atomic.Pointer[life]      // nil while the sessions are not open
	stuck          atomic.Pointer[stuckCall] // that makes the store unavailable
	crowded        atomic.Pointer[time.Time] // since when other programs hold the sessions that the pools were promised
	refused        atomic.Pointer[error]     // what the token said of the PIN
	epoch          atomic.Uint64             // of the newest life that was begun
	serial         atomic.Pointer[string]    // of the token that was opened first
	keepsTemplates atomic.Bool               // the module was seen to keep every UNWRAP_TEMPLATE
	open           atomic.Int64              // open sessions
	ticks          atomic.Int64              // of the watch, from 1
	troubled       atomic.Int64              // until when session objects get names, in nanoseconds since 1970
}

var (
	_ keystore.Store       = (*Store)(nil)
	_ keystore.Importer    = (*Store)(nil)
	_ keystore.PeerWrapper = (*Store)(nil)
	_ keystore.Admin       = (*Store)(nil)
)

// Open opens a token, proves by trying what the module must hold (see Probe),
// and checks the sealing keys if there are any.
//
// The login of PKCS #11 is for the process: where another store is open on the
// same token, the token is logged in already and does not look at the PIN.
func Open(c Config) (*Store, error) {
	uri, err := ParseURI(c.URI)
	if err != nil {
		return nil, err
	}
	if err := checkAllowed(c.AllowWeak); err != nil {
		return nil, err
	}
	s, err := c.open(uri)
	if err != nil {
		return nil, err
	}
	if err := s.prove(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open starts a store whose module and keys nothing is known of yet.
func (c Config) open(uri *URI) (*Store, error) {
	path, err := uri.module()
	if err != nil {
		return nil, err
	}
	mod, err := useModule(path)
	if err != nil {
		return nil, err
	}
	s := &Store{
		library: newLibrary(mod.functions), mod: mod, uri: uri, wait: cmp.Or(max(c.Wait, 0), defaultWait),
		prefix: cmp.Or(c.SealPrefix, keystore.DefaultPrefix), allow: c.AllowWeak, log: c.Log,
		templates: map[keystore.Algorithm]sessionTemplates{},
		done:      make(chan struct{}),
		name:      cryptorand.Text()[:8],
		recovery:  recovery{budget: rate.NewLimiter(rate.Every(longestPause), burst)},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, a := range keystore.Algorithms() {
		if k, err := kindOf(a); err == nil && a.Secret() && !a.Sealing() {
			s.templates[a] = newSessionTemplates(a, k)
		}
	}
	if err := s.begin(c); err != nil {
		s.pin.wipe()
		return nil, errors.Join(err, mod.release(s.wait))
	}
	s.ticks.Store(1)
	go s.watch(cmp.Or(max(c.CallTimeout, 0), defaultCallTimeout))
	return s, nil
}

// begin finds the token, reads the PIN and opens the first session.
func (s *Store) begin(c Config) error {
	var token tokenInfo
	err := s.patiently(func() (err error) {
		token, err = s.choose()
		return err
	})
	if err != nil {
		return err
	}
	// Outside the module: it may wait for a person.
	if err := s.readPIN(c.PIN, token); err != nil {
		return err
	}
	working, anchors := limits(c.Sessions, token)
	s.sessions, s.anchors = newPool(working, false), newPool(anchors, true)
	return s.patiently(func() error {
		if s.epoch.Load() > 0 {
			return s.start() // again: the token may be in another slot
		}
		return s.startIn(token)
	})
}

// patiently runs op as a call into the module, and again for a moment where it
// fails in a way that another program may cause: while one logs in to a SoftHSM
// token, others see no token, one without a PIN, or nothing at all.
func (s *Store) patiently(op func() error) error {
	var err error
	for try := range 8 {
		if err = s.mod.inside(s.wait, op); !passing(err) {
			return err
		}
		time.Sleep(time.Duration(10+10*try+rand.IntN(20)) * time.Millisecond)
		if again := s.mod.restartAlone(s.wait); again != nil {
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

// limits divides the sessions that a token allows. Of its limits 0 means none,
// and all ones that it does not tell (PKCS #11 v2.40, CK_TOKEN_INFO); openCryptoki
// says one less for none.
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
func (s *Store) choose() (tokenInfo, error) {
	all, untold, err := s.mod.tokens(false)
	if err != nil {
		return tokenInfo{}, err
	}
	var found []tokenInfo
	for _, t := range all {
		if s.uri.matches(t) {
			found = append(found, t)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return tokenInfo{}, fmt.Errorf("hsm: %s: %w (the module has %s); add ;serial= to the URI", s.uri, errAmbiguousToken, strings.Join(labels(found), ", "))
	case untold != nil:
		return tokenInfo{}, fmt.Errorf("hsm: no readable PKCS #11 token matches %s, and some cannot be read: %w", s.uri, untold)
	}
	return tokenInfo{}, &NoTokenError{URI: s.uri.String(), Tokens: labels(all)}
}

func labels(all []tokenInfo) []string {
	var names []string
	for _, t := range all {
		names = append(names, fmt.Sprintf("%q serial %s", t.Label, t.Serial))
	}
	return names
}

// readPIN reads the PIN where the token wants one and does not ask by itself.
func (s *Store) readPIN(source PINSource, token tokenInfo) error {
	if token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 || token.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0 {
		return nil
	}
	if source == "" {
		source = PINSource(s.uri.PINSource)
	}
	if source == "" {
		return fmt.Errorf("hsm: no PIN source for the PKCS #11 token %q: %w; name one, as file:/path or prompt", token.Label, keystore.ErrPIN)
	}
	var err error
	s.pin, err = source.read()
	return err
}

// Close closes the store with every session key it made. Operations that come
// later get keystore.ErrClosed. It waits for calls under way, but not longer than
// Config.Wait: where one does not return, the module is left as it is, and the
// error is keystore.ErrBusy.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		close(s.done)
		err = s.mod.alone(s.wait, func() error {
			s.life.Store(nil)
			for _, p := range []*pool{s.sessions, s.anchors} {
				for _, own := range p.all {
					s.empty(own)
				}
			}
			s.closeAbandoned()
			s.pin.wipe()
			return nil
		})
		if err == nil {
			err = s.mod.release(s.wait)
		}
	})
	return err
}

func (s *Store) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Serial returns the serial number of the token. The nodes of a cluster have
// different ones.
func (s *Store) Serial() string { return *s.serial.Load() }

// Stats are numbers about a store at one moment.
type Stats struct {
	Objects  int    // live session objects
	Sessions int    // open PKCS #11 sessions
	InUse    int    // of them, those that operations hold
	Epoch    uint64 // how often the sessions were opened anew
}

// Stats tells what the store holds in its token.
func (s *Store) Stats() Stats {
	alive := 0
	if now := s.life.Load(); now != nil {
		alive = int(now.objects.Load())
	}
	return Stats{
		Objects: alive + s.graves.count(), Sessions: int(s.open.Load()),
		InUse: s.sessions.busy() + s.anchors.busy(), Epoch: s.epoch.Load(),
	}
}

// Live counts the live session objects and the sessions that operations hold.
func (s *Store) Live() (objects, sessions int) {
	st := s.Stats()
	return st.Objects, st.InUse
}

// Calls counts the calls of PKCS #11 functions that the store made.
func (s *Store) Calls() map[string]uint64 {
	all := map[string]uint64{}
	for fn, name := range functionNames {
		if n := s.calls[fn].Load(); n > 0 {
			all[name] = n
		}
	}
	return all
}
