package hsm

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A module is one PKCS #11 library of this process. C_Initialize is for the
// whole process, so every store on the library shares the module; the library
// stays loaded after the last of them, because unloading one that has run is
// not safe.
type module struct {
	library
	path string
	text string // for C_Initialize; of the first store on it

	gate       gate          // every call into the library goes through it
	listing    lock          // C_GetSlotList of SoftHSM2 may add a slot, and two at once end the process
	generation atomic.Uint64 // grows with every C_Initialize seen

	sharing lock         // held while the first user comes or the last one goes
	users   atomic.Int64 // written with sharing held
	own     bool         // this package called C_Initialize; written with the gate shut

	mu     sync.Mutex
	stores []*connection // of the users

	restarted atomic.Pointer[time.Time] // the last time
}

// modules are the libraries loaded by this process, by their real path. No call into one that
// is loaded is made with the lock held: it may not return, and others have other modules.
var modules struct {
	sync.Mutex
	loaded map[string]*module
}

// useModule loads and initializes a library, with a text for it, or shares it if it is
// loaded.
func useModule(path, text string) (*module, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("hsm: PKCS #11 module %s: %w: %w; install it, or correct module-path", path, reason(err), keystore.ErrUnavailable)
	}
	m, err := loaded(real)
	if err != nil {
		return nil, err
	}
	return m, m.share(text)
}

// loaded loads a library, once.
func loaded(path string) (*module, error) {
	modules.Lock()
	defer modules.Unlock()
	if m := modules.loaded[path]; m != nil {
		return m, nil
	}
	m, err := loadModule(path)
	if err != nil {
		return nil, err
	}
	if modules.loaded == nil {
		modules.loaded = map[string]*module{}
	}
	modules.loaded[path] = m
	return m, nil
}

// share counts one more user, and initializes the module for the first.
func (m *module) share(text string) error {
	if err := m.sharing.take(defaultWait); err != nil {
		return err
	}
	defer m.sharing.free()
	if m.users.Load() == 0 {
		m.text = text
		if err := m.alone(defaultWait, m.begin); err != nil {
			return err
		}
	}
	m.users.Add(1)
	return nil
}

// alone runs op while no call is in progress. It fails if one does not end in time.
func (m *module) alone(wait time.Duration, op func() error) error {
	if !m.gate.close(wait) {
		return fmt.Errorf("hsm: %s: a call does not return, so the module cannot be initialized or finalized: %w", m.path, keystore.ErrBusy)
	}
	defer m.gate.open()
	return op()
}

// begin calls C_Initialize, with the gate shut. A module that other code has
// initialized is used, and left for that code to finalize.
func (m *module) begin() error {
	err := m.initialize(m.text)
	m.own = err == nil
	switch {
	case err == nil, already(err):
	case m.text == "" && quirkParameters.is(err):
		return fmt.Errorf("%w; %s may require a text of its own: set keystore.initialize", err, m.path)
	default:
		return fmt.Errorf("%w; see the configuration of %s", err, m.path)
	}
	m.generation.Add(1)
	return nil
}

func already(err error) bool { return answered(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) }

func answered(err error, code uint) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// restart finalizes and initializes again: many modules recover in no other way after
// their device went away. If the module is not finalized, since it refuses or other code
// initialized it, its sessions stay open. The generation then does not change, so that
// they are closed one by one.
func (m *module) restart(wait time.Duration) error {
	return m.alone(wait, func() error {
		if m.users.Load() == 0 { // the last store was closed meanwhile: nobody would finalize it
			return errClosed
		}
		ended := m.own && m.end() == nil
		err := m.initialize(m.text)
		if ended && err != nil && !already(err) {
			// It may have worked nevertheless, and then nobody would finalize it.
			_ = m.end()
			err = m.initialize(m.text)
		}
		switch {
		case err != nil && !already(err):
			return fmt.Errorf("%w; see the configuration of %s", err, m.path)
		case err == nil:
			m.own = true
		default: // it was not finalized, whatever it answered
			m.own = m.own || ended
			return nil
		}
		m.generation.Add(1)
		m.restarted.Store(new(time.Now()))
		return nil
	})
}

// sparing is how long after a restart the next one waits, if another store works.
const sparing = 15 * time.Second

// spares reports whether the module is not restarted for a store now: a restart takes the
// sessions of all, also of those whose token works.
func (m *module) spares(who *connection) bool {
	if last := m.restarted.Load(); last == nil || time.Since(*last) > sparing {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.stores, func(c *connection) bool {
		now := c.life.Load()
		return c != who && now != nil && now.generation == m.generation.Load() && c.watch.stuck.Load() == nil
	})
}

// join notes a store that uses the module.
func (m *module) join(c *connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stores = append(m.stores, c)
}

// part undoes join.
func (m *module) part(c *connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stores = slices.DeleteFunc(m.stores, func(other *connection) bool { return other == c })
}

// end calls C_Finalize, and again if it fails. A module that other code has finalized
// counts as finalized.
func (m *module) end() error {
	var err error
	for range 2 {
		err = m.finalize()
		if err == nil || answered(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
			m.own = false
			return nil
		}
	}
	return err
}

// release undoes useModule. It waits for calls under way, but not longer than
// wait, nor longer for its own: a module that hangs is left as it is.
func (m *module) release(wait time.Duration) error {
	return bounded(2*wait, func() error { return m.unshare(wait) })
}

func (m *module) unshare(wait time.Duration) error {
	if err := m.sharing.take(wait); err != nil {
		return err
	}
	defer m.sharing.free()
	if m.users.Add(-1) > 0 {
		return nil
	}
	return m.alone(wait, func() error {
		if !m.own {
			return nil
		}
		err := m.end()
		m.own = false
		return err
	})
}

// tokens lists the initialized tokens, or with blank the slots where one can be made. A
// slot whose token cannot be read does not hide others, but is reported if it may hold the
// wanted token.
func (m *module) tokens(blank bool) (all []tokenInfo, untold error, err error) {
	slots, err := m.list(withTokens)
	if err != nil {
		return nil, nil, err
	}
	for _, slot := range slots {
		info, err := m.tokenInfo(slot)
		if err != nil {
			untold = errors.Join(untold, fmt.Errorf("slot %d: %w", slot, err))
			continue
		}
		if blank != isInitialized(info.Flags) {
			all = append(all, info)
		}
	}
	return all, untold, nil
}

// list lists slots while nobody else does.
func (m *module) list(which byte) ([]uint, error) {
	if err := m.listing.take(defaultWait); err != nil {
		return nil, err
	}
	defer m.listing.free()
	return m.slots(which)
}

// inside runs op as a call into the module.
func (m *module) inside(wait time.Duration, op func() error) error {
	if !m.gate.enter(wait) {
		return fmt.Errorf("hsm: %s is being initialized or finalized: %w", m.path, keystore.ErrBusy)
	}
	defer m.gate.leave()
	return op()
}

// restartAlone is restart where no other store of this process uses the module.
func (m *module) restartAlone(wait time.Duration) error {
	if m.users.Load() != 1 {
		return nil
	}
	return m.restart(wait)
}
