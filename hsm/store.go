package hsm

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

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
	// SealPrefix starts the labels of the sealing keys: <prefix>-seal-session,
	// <prefix>-seal-wrapping and <prefix>-seal-mac. The default is msl.
	SealPrefix string
	// AllowWeak names weaknesses of keys and failed checks of the module that
	// the store must live with. The names are those of Weaknesses.
	AllowWeak []string
}

// A Store is the keys of one PKCS #11 token. It is a [keystore.Store],
// [keystore.Importer], [keystore.PeerWrapper] and [keystore.Admin].
type Store struct {
	library
	mod       *module
	uri       *URI
	wait      time.Duration
	prefix    string
	allow     []string
	templates map[keystore.Algorithm]sessionTemplates

	sessions, anchors *pool
	done              chan struct{} // closed by Close
	closing           sync.Once
	recovery          recovery
	rings             rings
	admin             sync.Mutex // held while provisioned keys change

	epoch   atomic.Uint64 // grows whenever sessions are opened anew; written with mod.drain held
	objects atomic.Int64  // live session objects
	open    atomic.Int64  // open sessions

	// Guarded by mod.drain: written with the lock for writing.
	slot       uint
	token      tokenInfo
	generation uint64 // of the module
	ready      bool   // sessions are open
	closed     bool
	pin        *pin
	refused    error // what the token said of the PIN
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
		library: library{functions: mod.table, miekg: mod.miekg, calls: new(calls)},
		mod:     mod, uri: uri, wait: c.Wait, prefix: c.SealPrefix, allow: c.AllowWeak,
		templates: map[keystore.Algorithm]sessionTemplates{},
		done:      make(chan struct{}),
	}
	if s.wait <= 0 {
		s.wait = 5 * time.Second
	}
	if s.prefix == "" {
		s.prefix = "msl"
	}
	for _, a := range keystore.Algorithms() {
		if k, err := kindOf(a); err == nil && a.Secret() && !a.Sealing() {
			s.templates[a] = newSessionTemplates(a, k)
		}
	}
	if err := s.begin(c); err != nil {
		return nil, errors.Join(err, mod.release())
	}
	return s, nil
}

func (s *Store) begin(c Config) error {
	s.mod.drain.RLock()
	err := s.choose()
	s.mod.drain.RUnlock()
	if err != nil {
		return err
	}
	// Without the lock: it may wait for a person.
	if err := s.readPIN(c.PIN); err != nil {
		return err
	}
	s.mod.drain.Lock()
	defer s.mod.drain.Unlock()
	working, anchors := limits(c.Sessions, s.token)
	s.sessions, s.anchors = newPool(working, false), newPool(anchors, true)
	if err := s.start(); err != nil {
		s.pin.wipe()
		return err
	}
	return nil
}

// limits divides the sessions that a token allows. Of its limits 0 means none,
// and all ones that it does not tell (PKCS #11 v2.40, CK_TOKEN_INFO).
func limits(wanted int, t tokenInfo) (working, anchors int) {
	working, anchors = wanted, 2
	if working <= 0 {
		working = 4
	}
	for _, limit := range []uint{t.MaxSessionCount, t.MaxRwSessionCount} {
		if limit == 0 || limit == ^uint(0) {
			continue
		}
		if limit < 4 {
			anchors = 1
		}
		working = max(1, min(working, int(limit)-anchors))
	}
	return working, anchors
}

// choose finds the one token that the URI names: its slot changes when a module
// is initialised anew.
func (s *Store) choose() error {
	all, err := s.mod.tokens(false)
	if err != nil {
		return err
	}
	var found []tokenInfo
	for _, t := range all {
		if s.uri.matches(t) {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 1:
		s.token, s.slot = found[0], found[0].slot
		return nil
	case 0:
		return fmt.Errorf("hsm: no initialised PKCS #11 token matches %s (%s): %w; make one with msl-hsm token init", s.uri, labels(all), keystore.ErrNotFound)
	}
	return fmt.Errorf("hsm: %d PKCS #11 tokens match %s (%s): %w; add ;serial= to the URI", len(found), s.uri, labels(found), keystore.ErrNotFound)
}

func labels(all []tokenInfo) string {
	if len(all) == 0 {
		return "the module has none"
	}
	var names []string
	for _, t := range all {
		names = append(names, fmt.Sprintf("%q serial %s", t.Label, t.SerialNumber))
	}
	return "the module has " + strings.Join(names, ", ")
}

// readPIN reads the PIN where the token wants one and does not ask by itself.
func (s *Store) readPIN(source PINSource) error {
	if s.token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 || s.token.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0 {
		return nil
	}
	if source == "" {
		source = PINSource(s.uri.PINSource)
	}
	if source == "" {
		return fmt.Errorf("hsm: no PIN source for the PKCS #11 token %q: %w; name one, as file:/path or prompt", s.token.Label, keystore.ErrPIN)
	}
	var err error
	s.pin, err = source.read()
	return err
}

// Close closes the store with every session key it made. It waits for calls
// under way, and those that come later get keystore.ErrClosed.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		close(s.done)
		s.mod.drain.Lock()
		s.closed = true
		s.stop()
		s.pin.wipe()
		s.mod.drain.Unlock()
		err = s.mod.release()
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
func (s *Store) Serial() string {
	s.mod.drain.RLock()
	defer s.mod.drain.RUnlock()
	return s.token.SerialNumber
}

// Stats are numbers about a store at one moment.
type Stats struct {
	Objects  int    // live session objects
	Sessions int    // open PKCS #11 sessions
	InUse    int    // of them, those that operations hold
	Epoch    uint64 // how often the sessions were opened anew
}

// Stats tells what the store holds in its token.
func (s *Store) Stats() Stats {
	s.mod.drain.RLock()
	defer s.mod.drain.RUnlock()
	return Stats{
		Objects: int(s.objects.Load()), Sessions: int(s.open.Load()),
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
