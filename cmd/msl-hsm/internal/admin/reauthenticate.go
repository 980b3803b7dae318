package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/keystore"
	devices "github.com/msl-hsm/msl-hsm/tpm/enroll/etcd"
)

// Without calls destroy, which ends that version of the key that authenticates the state and
// the records of devices, and makes the newest remaining version authenticate them. In
// etcd that must come first. It is repeated afterwards, to notice whether a server used the
// destroyed version in between.
func Without(c *config.Config, store keys.Store, version uint32, newest bool, destroy func() error) (err error) {
	if c.Server.State.Shared() && newest {
		store = sparing{store, keystore.RoleIssuerMAC.Label(c.Keystore.Prefix), version}
	}
	h, err := hold(c, store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if c.Server.State.Shared() {
		err = h.renew()
	}
	if err == nil && c.Server.State.Shared() && newest {
		time.Sleep(settled)
		err = h.renew()
	}
	if err == nil {
		err = destroy()
	}
	if err != nil {
		return err
	}
	if err := h.renew(); err != nil {
		return fmt.Errorf("the version is destroyed, but the state could not be authenticated with another one: if a server runs, send it a message, and then run msl-hsm state check: %w", err)
	}
	return nil
}

// settled is longer than servers take to record that a rotation is done.
const settled = 2 * time.Second

// A sparing store makes nothing with one version of a key, unless there is no other, but checks
// what that made.
type sparing struct {
	keys.Store
	label   string
	version uint32
}

// Lookup returns that version last.
func (s sparing) Lookup(label string) ([]keystore.Version, error) {
	ring, err := s.Store.Lookup(label)
	if err != nil || label != s.label {
		return ring, err
	}
	spared := func(v keystore.Version) bool { return v.Number == s.version }
	i := slices.IndexFunc(ring, spared)
	if i < 0 {
		return ring, nil
	}
	return append(slices.DeleteFunc(slices.Clone(ring), spared), ring[i]), nil
}

// Refresh implements [keystore.Changing].
func (s sparing) Refresh(labels ...string) error {
	if changing, ok := s.Store.(keystore.Changing); ok {
		return changing.Refresh(labels...)
	}
	return nil
}

// SealWith implements [keystore.Changing].
func (s sparing) SealWith(label string, version uint32) error {
	if changing, ok := s.Store.(keystore.Changing); ok {
		return changing.SealWith(label, version)
	}
	return nil
}

// A held state is authenticated and known to be authentic: here, or by a running server.
type held struct {
	remote  *Running // or nil
	state   *State
	records keys.Records // or nil
}

// hold uses a key store that was opened before, if it is not nil: a second one in this
// process would be logged in to the same token.
func hold(c *config.Config, store keys.Store) (*held, error) {
	if remote, err := dialFile(c); remote != nil || err != nil {
		return &held{remote: remote}, err
	}
	s, err := OpenStateBy(c, store, nil)
	if err != nil {
		return nil, err
	}
	h := &held{state: s}
	if c.Server.Enrollment.On() && (c.Server.Enrollment.Shared() || !Absent(c.Server.Enrollment.File())) {
		if h.records, err = openRecords(c, s.store, authkv.Judge, devices.Administer); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return h, nil
}

func (h *held) renew() error {
	if h.remote != nil {
		return h.remote.callLong(http.MethodPost, "/state/reauthenticate", nil)
	}
	return renew(context.Background(), h.state, h.records)
}

func (h *held) close() error {
	if h.remote != nil {
		return h.remote.Close()
	}
	err := h.state.Close()
	if h.records != nil {
		err = errors.Join(err, h.records.Close())
	}
	return err
}

// renew makes the newest version of the key authenticate the state, and records of
// devices unless they are nil.
func renew(ctx context.Context, s *State, records keys.Records) error {
	if s.store == nil {
		return nil // nothing could be judged either
	}
	err := keys.Refresh(s.store)
	if err == nil {
		err = s.Reauthenticate(ctx)
	}
	if err == nil && records != nil {
		err = records.Renew(ctx)
	}
	return err
}

// Reauthenticate makes the newest version of the key authenticate the state.
func (s *State) Reauthenticate(ctx context.Context) error {
	switch {
	case s.File != nil:
		return s.File.Reauthenticate(ctx)
	case s.renew != nil:
		return s.renew(ctx)
	}
	return nil
}
