package admin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
)

func checkShared(c *config.Config, file string) error {
	if c.Server.State.Shared() {
		return nil
	}
	return exit.Usagef("the configuration has no state in etcd: set server.state.etcd; a state in a file is copied with %s", file)
}

// ExportState writes the state in etcd to a new file. progress may be nil.
func ExportState(c *config.Config, path string, progress func(records int)) (sum state.Summary, err error) {
	if err := checkShared(c, "msl-hsm state backup"); err != nil {
		return sum, err
	}
	s, err := OpenState(c, "")
	if err != nil {
		return sum, err
	}
	defer exit.Closing(&err, s)
	if err := s.verify(); err != nil {
		return sum, err
	}
	sum, err = (&Keys{c: c, store: s.store}).states(authkv.Vouch).Write(context.Background(), path, s.Server, progress)
	if err == nil && c.Server.Enrollment.Shared() {
		err = attachShared(c, s, path)
	}
	err = Tell(c, nil, "state export", path, err)
	if errors.Is(err, bolt.ErrExists) {
		err = exit.Usagef("%s already exists: name another file", path)
	}
	return sum, err
}

// attachShared adds the enrollments in etcd to an export of the state, which it removes
// on failure.
func attachShared(c *config.Config, s *State, export string) error {
	content, err := sharedEnrollments(c, s, filepath.Dir(export))
	if err == nil {
		err = bolt.Attach(export, content)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(export))
	}
	return err
}

// ImportState writes a state file to etcd. progress may be nil.
func (r *Restoring) ImportState(keepTokens bool, progress func(records int)) (sum state.Summary, err error) {
	c, path, newKeys := r.c, r.backup, r.newKeys
	if err := checkShared(c, "msl-hsm state restore"); err != nil {
		return sum, err
	}
	r.needs = true
	files := r.states(authkv.Judge)
	if newKeys {
		files = bolt.Files{} // the keys that authenticate it are lost
	}
	from, err := files.Reopen(path)
	if err != nil {
		return sum, r.unusable(path, err)
	}
	defer exit.Closing(&err, from)
	if sum, err = from.Summary(); err != nil {
		return sum, err
	}
	err = r.withCluster(func(store keys.Store, at etcd.Config) error {
		if err := importable(c, path, from.Server, store, newKeys); err != nil {
			return err
		}
		return etcd.Import(context.Background(), at, from.Server, keepTokens, progress)
	})
	if errors.Is(err, etcd.ErrExists) {
		err = fmt.Errorf("there is a state %s already: choose another prefix, or remove it with etcdctl del --prefix: %w", &c.Server.State, err)
	}
	return sum, err
}

// importable checks that a state file belongs to the keys of a store, unless it is to
// belong to them from now on.
func importable(c *config.Config, path string, from *state.Server, store keys.Store, newKeys bool) error {
	if newKeys {
		return nil
	}
	known, err := from.Pair(context.Background())
	if err != nil || len(known) == 0 {
		return err
	}
	own, err := prints(store, issuerMAC(c))
	if err == nil {
		_, err = fits(c, path, own, known)
	}
	return err
}
