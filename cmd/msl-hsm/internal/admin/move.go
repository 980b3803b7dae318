package admin

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

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

// ExportState writes the state in etcd, with the enrollments there, to a new file. progress may
// be nil.
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
	err = whole(path, func(made string) error {
		sum, err = (&Keys{c: c, store: s.store}).states(authkv.Vouch).Write(context.Background(), made, s.Server, progress)
		if err == nil && c.Server.Enrollment.Shared() {
			err = attachShared(c, s, made)
		}
		return err
	})
	return sum, Tell(c, nil, "state export", path, err)
}

// attachShared adds the enrollments in etcd to an export of the state.
func attachShared(c *config.Config, s *State, export string) error {
	content, err := sharedEnrollments(c, s, filepath.Dir(export))
	if err != nil {
		return err
	}
	return bolt.Attach(export, content)
}

// An Imported describes what [Restoring.ImportState] did.
type Imported struct {
	Ended time.Time // tokens issued until then are invalid; zero if they were kept
	state.Summary
}

// ImportState writes a state file to etcd. progress may be nil.
func (r *Restoring) ImportState(keepTokens bool, progress func(records int)) (done Imported, err error) {
	c, path, newKeys := r.c, r.backup, r.newKeys
	if err := checkShared(c, "msl-hsm state restore"); err != nil {
		return done, err
	}
	r.needs = true
	files := r.states(authkv.Judge)
	if newKeys {
		files = bolt.Files{} // the keys that authenticate it are lost
	}
	from, err := files.Reopen(path)
	if err != nil {
		return done, r.unusable(path, err)
	}
	defer exit.Closing(&err, from)
	if done.Summary, err = from.Summary(); err != nil {
		return done, err
	}
	err = r.withCluster(func(store keys.Store, at etcd.Config) (err error) {
		if err := importable(c, path, from.Server, store, newKeys); err != nil {
			return err
		}
		done.Ended, err = etcd.Import(context.Background(), at, from.Server, keepTokens, progress)
		return err
	})
	if errors.Is(err, etcd.ErrExists) {
		err = fmt.Errorf("there is a state %s already: choose another prefix, or remove it with etcdctl del --prefix%s: %w", &c.Server.State, r.otherwise(), err)
	}
	return done, err
}

// otherwise says what else to do with a backup whose state is there, since an import may have
// been interrupted after it.
func (r *Restoring) otherwise() string {
	if content, err := bolt.Attached(r.backup); err != nil || content == nil || !r.c.Server.Enrollment.Shared() {
		return ""
	}
	return "; if only its enrollments are missing, run msl-hsm enrollment import " + Quoted(r.backup)
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
