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
	"github.com/msl-hsm/msl-hsm/internal/throwaway"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	devices "github.com/msl-hsm/msl-hsm/tpm/enroll/etcd"
)

// ImportEnrollments writes the backup's enrollments to etcd, and counts them by state.
func (r *Restoring) ImportEnrollments(content []byte) (map[enroll.State]int, error) {
	return r.importEnrollments(content, r.trust(), nil)
}

// ImportEnrollments writes the file of enrollments at path, or those in a backup, to
// etcd, and counts them by state. progress may be nil.
func ImportEnrollments(c *config.Config, path string, progress func(entries int)) (_ map[enroll.State]int, err error) {
	if err := checkSharedEnrollments(c); err != nil {
		return nil, err
	}
	content, err := bolt.Attached(path)
	switch {
	case errors.Is(err, bolt.ErrFormat): // it is not a backup
		content, err = os.ReadFile(path)
	case err == nil && content == nil:
		err = fmt.Errorf("%s is a state file without enrollments: name the file of enrollments, or a backup", path)
	}
	if err != nil {
		return nil, err
	}
	k := KeysOf(c)
	defer exit.Closing(&err, k)
	return k.importEnrollments(content, authkv.Judge, progress)
}

func checkSharedEnrollments(c *config.Config) error {
	if c.Server.Enrollment.Shared() {
		return nil
	}
	return exit.Usagef("the configuration has no enrollments in etcd: set server.enrollment.state to etcd; those in a file are copied with msl-hsm state backup")
}

// importEnrollments works on a copy: it changes nothing in a file that may belong to
// someone else.
func (r *Keys) importEnrollments(content []byte, trust authkv.Trust, progress func(int)) (states map[enroll.State]int, err error) {
	err = onCopy(content, func(path string) error {
		from, err := r.enrollments(trust).Open(path)
		if err != nil {
			return err
		}
		err = r.withCluster(func(_ keys.Store, at etcd.Config) (err error) {
			states, err = devices.Import(context.Background(), devicesAt(at), from.Stored, progress)
			return err
		})
		return errors.Join(err, from.Close())
	})
	if errors.Is(err, devices.ErrExists) {
		err = fmt.Errorf("there are enrollments %s already: remove them with etcdctl del --prefix: %w", placeOfEnrollments(r.c), err)
	}
	return states, err
}

// onCopy calls do with a temporary file of that content.
func onCopy(content []byte, do func(path string) error) error {
	dir, err := throwaway.Dir("", "msl-hsm-copy-")
	if err != nil {
		return err
	}
	defer throwaway.Remove(dir)
	path := filepath.Join(dir, "content")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	return do(path)
}

// ExportEnrollments writes the enrollments in etcd to a new file, and counts them by
// state.
func ExportEnrollments(c *config.Config, path string) (states map[enroll.State]int, err error) {
	if err := checkSharedEnrollments(c); err != nil {
		return nil, err
	}
	s, err := OpenState(c, "")
	if err != nil {
		return nil, err
	}
	defer exit.Closing(&err, s)
	err = whole(path, func(made string) error {
		states, err = writeEnrollments(c, s, made)
		return err
	})
	return states, err
}

// writeEnrollments writes only authentic records.
func writeEnrollments(c *config.Config, s *State, path string) (states map[enroll.State]int, err error) {
	at, err := clusterOf(c, s.store)
	if err != nil {
		return nil, err
	}
	from, err := devices.Administer(context.Background(), devicesAt(at))
	if err != nil {
		return nil, err
	}
	defer exit.Closing(&err, from)
	if err := from.Verify(context.Background()); err != nil {
		return nil, err
	}
	return (&Keys{c: c, store: s.store}).enrollments(authkv.Vouch).Write(context.Background(), path, from.Stored)
}

// sharedEnrollments returns the content of a file of the enrollments, made in a temporary
// directory.
func sharedEnrollments(c *config.Config, s *State, beside string) ([]byte, error) {
	dir, err := throwaway.Dir(beside, "msl-hsm-export-")
	if err != nil {
		return nil, err
	}
	defer throwaway.Remove(dir)
	path := filepath.Join(dir, "enrollments")
	if _, err := writeEnrollments(c, s, path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}
