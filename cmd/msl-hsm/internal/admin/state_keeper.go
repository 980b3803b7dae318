package admin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

func (l localKeeper) Check() (StateReport, error) { return reportOn(l.Server, l.ca) }

func (l localKeeper) Prune() (bolt.Forgotten, error) {
	return l.Forget(context.Background(), l.keep)
}

func (l localKeeper) Close() error {
	if l.ca != nil {
		defer l.ca.Close()
	}
	return l.Server.Close()
}

func (r remoteKeeper) Check() (report StateReport, err error) {
	err = fromServer(r.callLong("Keeper.Check", struct{}{}, &report))
	return report, err
}

func (r remoteKeeper) Prune() (f bolt.Forgotten, err error) {
	err = fromServer(r.callLong("Keeper.Prune", struct{}{}, &f))
	return f, err
}

// Alive answers.
func (*Keeper) Alive(struct{}, *struct{}) error { return nil }

// Check reads everything.
func (k *Keeper) Check(_ struct{}, r *StateReport) (err error) {
	*r, err = reportOn(k.State, k.Ca)
	return err
}

// Snapshot copies the state, and the enrollments with it, to a file beside the state,
// which the caller removes, and returns the name without the directory.
func (k *Keeper) Snapshot(_ struct{}, name *string) error {
	f, err := os.CreateTemp(filepath.Dir(k.Path), filepath.Base(k.Path)+".backup-*")
	if err != nil {
		return err
	}
	time.AfterFunc(snapshotLife, func() { os.Remove(f.Name()) })
	*name = filepath.Base(f.Name())
	err = errors.Join(k.State.Snapshot(f), f.Close())
	if err == nil && k.Ca != nil {
		err = attachEnrollments(f.Name(), k.Ca.File)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// Prune forgets what no token needs.
func (k *Keeper) Prune(_ struct{}, f *bolt.Forgotten) (err error) {
	*f, err = k.State.Forget(context.Background(), k.Keep)
	return err
}
