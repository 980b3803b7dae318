package admin

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// Keys are a command's key store. It is opened once, so that the PIN is asked for only
// once and may come from a descriptor, and not before it is needed, for example to
// authenticate a file: any other fault of that file is reported first.
type Keys struct {
	c     *config.Config
	store keys.Store // nil until opened
	err   error      // why opening failed
	none  error      // why there is none yet
	needs bool       // requires a key store, so that having none is an error
	own   bool       // opened here
}

// KeysOf returns the key store of a configuration, not opened yet. The caller must close
// it.
func KeysOf(c *config.Config) *Keys { return &Keys{c: c} }

// KeysBy returns a key store that was opened before; whoever opened it closes it.
func KeysBy(c *config.Config, store keys.Store) *Keys { return &Keys{c: c, store: store} }

// Store returns the key store. Having none is an error.
func (r *Keys) Store() (keys.Store, error) {
	r.needs = true
	return r.open()
}

// open returns the key store, or nil if there is none yet.
func (r *Keys) open() (keys.Store, error) {
	if r.store != nil || r.err != nil || r.c.Keystore.None() && !r.needs {
		return r.store, r.err
	}
	store, err := keys.Open(r.c)
	if errors.Is(err, keystore.ErrNotFound) && !r.needs {
		r.none = missing{err}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.store, r.own = store, true
	return store, nil
}

// Missing returns why no key authenticated what was read, although the configuration names a
// key store: that was not found. Otherwise it is nil.
func (r *Keys) Missing() error {
	m, _ := r.none.(missing)
	return m.error
}

// A missing key store was named and not found. That is why there is no key.
type missing struct{ error }

func (m missing) Error() string {
	return fmt.Sprintf("its records are authenticated with a key of the server, and the key store that has it was not found: %v", m.error)
}

func (m missing) Unwrap() []error { return []error{m.error, authkv.ErrNoKey} }

// Close closes the key store if it was opened here.
func (r *Keys) Close() error {
	if !r.own {
		return nil
	}
	r.own = false
	return r.store.Close()
}

// guard authenticates a file with the key that authenticates tokens, and marks it with a
// key that has no other use.
func (r *Keys) guard(mark keystore.Role, trust authkv.Trust) authkv.Guard {
	return authkv.Guard{Trust: trust, Key: func() (authkv.Key, authkv.Mark, error) {
		store, err := r.open()
		if err != nil {
			return nil, nil, storeError{err}
		}
		if store == nil {
			return nil, nil, r.none
		}
		prefix := r.c.Keystore.Prefix
		key, err := state.KeyOf(store, keystore.RoleIssuerMAC.Label(prefix))
		if errors.Is(err, keystore.ErrNotFound) {
			return nil, nil, nil // nothing was issued yet
		}
		if err != nil {
			return nil, nil, storeError{err}
		}
		return key, markKey{store, mark.Label(prefix)}, nil
	}}
}

// A storeError is one of the key store. It tells nothing about the file that a key in there
// authenticates, such as that it does not exist.
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

func (r *Keys) states(trust authkv.Trust) bolt.Files {
	return bolt.Files{Guard: r.guard(keystore.RoleStateMark, trust)}
}

func (r *Keys) enrollments(trust authkv.Trust) enroll.Files {
	return enroll.Files{Guard: r.guard(keystore.RoleEnrollmentsMark, trust)}
}

// A markKey is a key that exists if files are authenticated. Only someone who may change
// the token can make or remove it.
type markKey struct {
	store keys.Store
	label string
}

// There implements [authkv.Mark].
func (m markKey) There() (bool, error) {
	_, err := m.store.Lookup(m.label)
	if errors.Is(err, keystore.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Make implements [authkv.Mark].
func (m markKey) Make() error {
	_, err := m.store.Create(m.label, keystore.RoleStateMark.Algorithm())
	return err
}

// authenticity says what an opened file lacks, or "".
func authenticity(path string, v authkv.Verdict, marked func() (bool, error)) string {
	if !v.Authentic {
		return path + " is not authenticated, so anyone who can write it can lift a revocation: msl-hsm serve starts authenticating it"
	}
	if there, err := marked(); err == nil && !there {
		return path + " is authenticated, but the key store does not record that it must be: msl-hsm serve says why"
	}
	return ""
}

// Doubts says how someone who can write the state, or the file of enrollments, could
// change it undetected.
func (s *State) Doubts(c *config.Config) (doubts []string, err error) {
	prefix := c.Keystore.Prefix
	if s.File != nil {
		doubts = append(doubts, authenticity(c.Server.State.Path(), s.File.Verdict, markKey{s.store, keystore.RoleStateMark.Label(prefix)}.There))
	}
	if path := c.Server.Enrollment.File(); path != "" && !Absent(path) {
		var f *enroll.File
		if f, err = openEnrollmentFile(c, s.store, authkv.Judge); err == nil {
			doubts = append(doubts, authenticity(path, f.Verdict, markKey{s.store, keystore.RoleEnrollmentsMark.Label(prefix)}.There))
			err = f.Close()
		}
	}
	return slices.DeleteFunc(doubts, func(d string) bool { return d == "" }), err
}

// tellVerdict logs what a server should report about a file that it opened.
func tellVerdict(log *slog.Logger, path string, mark keystore.Role, v authkv.Verdict, c *config.Config) {
	if v.New {
		log.Info("the file is authenticated from now on: its contents were accepted unchanged", "file", path)
	}
	if v.Unmarked != nil {
		log.Warn("the key store cannot record that the file is authenticated, so anyone who can write it can replace it with one that is not: make the key once with msl-hsm key create, on each token",
			"file", path, "key", mark.Label(c.Keystore.Prefix), "error", exit.OneLine(v.Unmarked))
	}
}
