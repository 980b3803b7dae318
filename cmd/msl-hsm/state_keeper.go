package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// A stateKeeper looks after a state: the file itself or, while a server has it
// open, that server.
type stateKeeper interface {
	check() (StateReport, error)
	prune() (state.Forgotten, error)
	Close() error
}

type localKeeper struct {
	*bolt.Server
	ca   *authority // or nil
	keep time.Duration
}

func (l localKeeper) check() (StateReport, error) { return reportOn(l.Server, l.ca) }

func (l localKeeper) prune() (state.Forgotten, error) {
	return l.Forget(context.Background(), l.keep)
}

func (l localKeeper) Close() error {
	if l.ca != nil {
		defer l.ca.Close()
	}
	return l.Server.Close()
}

type remoteKeeper struct{ *runningServer }

func (r remoteKeeper) check() (report StateReport, err error) {
	err = fromServer(r.callLong("Keeper.Check", struct{}{}, &report))
	return report, err
}

func (r remoteKeeper) prune() (f state.Forgotten, err error) {
	err = fromServer(r.callLong("Keeper.Prune", struct{}{}, &f))
	return f, err
}

// openKeeper reaches a running server, or opens the files where there is none.
func (c *config) openKeeper(path string) (stateKeeper, error) {
	remote, err := dialServer(path)
	if remote != nil || err != nil {
		return remoteKeeper{remote}, err
	}
	if err := c.findEnrollments(); err != nil {
		return nil, err
	}
	state, err := c.openState("")
	if err != nil {
		return nil, err
	}
	l := localKeeper{Server: state, keep: c.acceptedFor()}
	if c.Server.Enrollment.State == "" {
		return l, nil
	}
	if l.ca, err = c.openAuthority(state, nil); err != nil {
		state.Close()
		return nil, err
	}
	return l, nil
}

// onState is a verb on the state of a server, running or not.
func (p *program) onState(path string, do func(stateKeeper) error) (err error) {
	c, file, err := p.stateFile(path)
	if err != nil {
		return err
	}
	k, err := c.openKeeper(file)
	if err != nil {
		return err
	}
	defer closing(&err, k)
	return do(k)
}

// A Keeper looks after the state of a running server.
type Keeper struct {
	state *bolt.Server
	path  string
	keep  time.Duration
	ca    *authority // or nil
}

// Alive answers.
func (*Keeper) Alive(struct{}, *struct{}) error { return nil }

// Check reads everything.
func (k *Keeper) Check(_ struct{}, r *StateReport) (err error) {
	*r, err = reportOn(k.state, k.ca)
	return err
}

// snapshotLife is for how long a copy waits to be fetched.
const snapshotLife = 10 * time.Minute

// Snapshot copies the state, and the enrollments with it, to a file beside the state,
// which the caller removes, and returns the name without the directory.
func (k *Keeper) Snapshot(_ struct{}, name *string) error {
	f, err := os.CreateTemp(filepath.Dir(k.path), filepath.Base(k.path)+".backup-*")
	if err != nil {
		return err
	}
	time.AfterFunc(snapshotLife, func() { os.Remove(f.Name()) })
	*name = filepath.Base(f.Name())
	err = errors.Join(k.state.Snapshot(f), f.Close())
	if err == nil && k.ca != nil {
		err = attachEnrollments(f.Name(), k.ca.file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// Prune forgets what no token needs.
func (k *Keeper) Prune(_ struct{}, f *state.Forgotten) (err error) {
	*f, err = k.state.Forget(context.Background(), k.keep)
	return err
}
