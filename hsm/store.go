package hsm

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/internal/outage"
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
	// Initialize is a text for C_Initialize to pass to the module, as pReserved of
	// CK_C_INITIALIZE_ARGS: NSS expects its parameters there. The default is none, as PKCS #11
	// requires. The first store on a module decides for the whole process.
	Initialize string
	// Sessions is the maximum number of PKCS #11 sessions in use at a time, and so of threads
	// that wait for the module. The default is 128. A lower limit of the token takes
	// precedence. The number rises above 4 only while operations wait and more sessions do not
	// slow its answers down; sessions that were not needed for a minute are closed. A few more
	// sessions make and hold keys.
	Sessions int
	// Wait bounds the wait for one of them. The default is 5 seconds.
	Wait time.Duration
	// SealPrefix is the first part of the labels of the sealing keys, see
	// [keystore.SealingRoles]. The default is [keystore.DefaultPrefix].
	SealPrefix string
	// CallTimeout is how long a call into the module may take. While a call takes longer, the
	// store is unavailable: operations fail with keystore.ErrUnavailable immediately until
	// that call returns. Generating a key pair may take twelve times as long. The default is
	// 10 seconds.
	CallTimeout time.Duration
	// Log receives an entry when the device is lost and when it returns. Nil means no log.
	Log *slog.Logger
	// Calls, if not nil, is called for each operation on a session, from several goroutines.
	// It must not block.
	Calls func(keystore.Call)
	// Login, if not nil, is called to give the PIN to the token: by give, once, whose error it
	// returns. So it can note that an answer is due, which a module that crashes does not give.
	Login func(give func() error) error
	// TrustedWrapping makes sealing keys whose blobs can be sealed again by newer ones that
	// the security officer marked as trusted wrapping keys (see [Store.Reseal]), and accepts
	// such keys. Open then refuses a module that lets sealed keys out in any other way.
	TrustedWrapping bool
	// SessionsElsewhere is for a store that has only provisioned keys, such as that of package
	// keystore/split: session keys are not in the token. Open then accepts a module that
	// cannot make them, and requires only the checks that protect provisioned keys.
	SessionsElsewhere bool
	// LockDir is a directory that all programs on this machine have in common which change the
	// provisioned keys of the token, for files by which they take turns, such as that of the tokens
	// of SoftHSM. The default is one of the user among the temporary files.
	LockDir string
	// AllowWeak names weaknesses of keys and failed checks of the module that are
	// accepted. The names are those of Weaknesses.
	AllowWeak []string
}

const (
	defaultWait        = 5 * time.Second
	defaultCallTimeout = 10 * time.Second
)

// A Store holds the keys of one PKCS #11 token. It is a [keystore.Store],
// [keystore.Importer], [keystore.PeerWrapper], [keystore.RandomSource], [keystore.Admin],
// [keystore.Changing] and [keystore.Resealer].
type Store struct {
	*connection               // the sessions and the login
	recovery    *recovery     // what gets them back
	inspector   *inspector    // judges what is in the token
	rings       *rings        // the provisioned keys
	provisioner provisioner   // changes them
	births      births        // makes session objects
	doubts      *rate.Limiter // of data that does not open
	generator

	closing sync.Once
}

var (
	_ keystore.Store       = (*Store)(nil)
	_ keystore.Importer    = (*Store)(nil)
	_ keystore.PeerWrapper = (*Store)(nil)
	_ keystore.Admin       = (*Store)(nil)
	_ keystore.Changing    = (*Store)(nil)

	_ keystore.RandomSource = (*Store)(nil)
)

// Open opens a token, tests that the module protects keys as it must (see
// [Store.Probe]), and checks the sealing keys if there are any.
//
// A PKCS #11 login is valid for the whole process: if another store is open on the
// same token, the token is logged in already and does not check the PIN.
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
	if err := prove(s); err != nil {
		return nil, errors.Join(expired(err), s.Close())
	}
	return s, nil
}

// expired says what follows where a token lets the user log in, and do nothing else.
func expired(err error) error {
	if answered(err, pkcs11.CKR_PIN_EXPIRED) {
		return fmt.Errorf("%w: the token requires a new PIN first", err)
	}
	return err
}

// open starts a store whose module and keys were not checked yet.
func (c Config) open(uri *URI) (*Store, error) {
	path, err := uri.module()
	if err != nil {
		return nil, err
	}
	mod, err := useModule(path, c.Initialize)
	if err != nil {
		return nil, err
	}
	s := newStore(newConnection(mod, uri, c), c)
	if err := s.begin(c); err != nil {
		s.access.pin.wipe()
		return nil, errors.Join(err, mod.release(s.wait))
	}
	mod.join(s.connection)
	s.watch.ticks.Store(1)
	go s.watch.run(s.functions, cmp.Or(max(c.CallTimeout, 0), defaultCallTimeout), slices.Concat(s.sessions.all, s.anchors.all), s.done, s.log)
	go s.rest(s.rings.confirmMarks)
	return s, nil
}

// newStore puts a store together.
func newStore(conn *connection, c Config) *Store {
	conn.trust = c.TrustedWrapping
	templates := allSessionTemplates()
	in := &inspector{library: conn.library, prefix: cmp.Or(c.SealPrefix, keystore.DefaultPrefix), allow: c.AllowWeak, provisioned: c.SessionsElsewhere, checkLogin: conn.checkLogin}
	r := &recovery{
		connection: conn,
		test:       selfTester{library: conn.library, templates: templates[keystore.HMACSHA256]},
		budget:     rate.NewLimiter(rate.Every(spacing), burst),
		lost:       outage.Outage{Trust: outage.Device},
	}
	found := &rings{connection: conn, recovery: r, inspector: in, searches: rate.NewLimiter(rate.Every(time.Second), 3)}
	r.test.known = found.proveOne
	return &Store{
		connection: conn, recovery: r, inspector: in, rings: found,
		provisioner: provisioner{connection: conn, recovery: r, inspector: in, rings: found, lockDir: c.LockDir},
		births:      births{connection: conn, inspector: in, templates: templates},
		doubts:      newDoubts(),
		generator:   generator{r},
	}
}

// Close closes the store and every session key that it made. Later operations
// return keystore.ErrClosed. It waits for calls under way, but not longer than
// Config.Wait: if a call does not return, the module is left as it is, and the error
// is keystore.ErrBusy. It is the same if closing takes three times as long.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		close(s.done)
		s.recovery.lost.Stop()
		err = bounded(3*s.wait, func() error { return leaveModule(s.connection) })
	})
	return err
}

// leaveModule closes the sessions, and stops using the module.
func leaveModule(c *connection) error {
	err := c.mod.alone(c.wait, func() error {
		c.leave()
		c.graves.closeAbandoned()
		c.access.pin.wipe()
		return nil
	})
	c.mod.part(c)
	if err != nil {
		return err
	}
	return c.mod.unshare(c.wait)
}

// Serial returns the serial number of the token. The nodes of a cluster have
// different ones.
func (c *connection) Serial() string { return *c.access.serial.Load() }

// Stats are numbers about a store at one moment.
type Stats struct {
	Objects  int    // live session objects
	Sessions int    // open PKCS #11 sessions
	InUse    int    // of those, held by an operation
	Epoch    uint64 // how often the sessions were opened anew, at least 1

	// Stuck names the function of a call that has taken longer than Config.CallTimeout, or is
	// empty.
	Stuck string

	// Latency is the shortest recent time of an operation with a session key, see
	// [keystore.Timed]; 0 if there was none.
	Latency time.Duration
}

// Stats returns what the store holds in its token now.
func (s *Store) Stats() Stats {
	alive, function := 0, ""
	if stuck := s.watch.stuck.Load(); stuck != nil {
		function = stuck.function
	}
	if now := s.life.Load(); now != nil {
		alive = int(now.objects.Load())
	}
	busy := s.sessions.busy()
	if s.anchors != s.sessions {
		busy += s.anchors.busy()
	}
	return Stats{
		Objects: alive + s.graves.size(), Sessions: int(s.open.Load()),
		InUse: busy, Epoch: s.epoch.Load(), Stuck: function, Latency: s.pace.Least(),
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
