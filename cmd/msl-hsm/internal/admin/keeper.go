package admin

import (
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// AcceptedFor is how long a master token may be used or renewed.
func AcceptedFor(c *config.Config) time.Duration {
	return (&msl.Issuer{Lifetime: c.Server.Lifetime, RenewExpired: c.Server.RenewExpired}).AcceptedFor()
}

// A StateReport is what is in the state of a server.
type StateReport struct {
	bolt.Summary
	Enrollments map[enroll.State]int `json:"enrollments,omitempty"` // records by their state
}

// reportOn reads everything.
func reportOn(state *bolt.Server, ca *keys.Authority) (r StateReport, err error) {
	if r.Summary, err = state.Check(); err != nil || ca == nil {
		return r, err
	}
	r.Enrollments, err = ca.File.Check()
	return r, err
}

// A StateKeeper looks after a state: the file itself or, while a server has it
// open, that server.
type StateKeeper interface {
	Check() (StateReport, error)
	Prune() (bolt.Forgotten, error)
	Close() error
}

type localKeeper struct {
	*bolt.Server
	ca   *keys.Authority // or nil
	keep time.Duration
}

type remoteKeeper struct{ *runningServer }

// OpenKeeper reaches a running server, or opens the files where there is none.
func OpenKeeper(c *config.Config, path string) (StateKeeper, error) {
	remote, err := DialServer(path)
	if remote != nil || err != nil {
		return remoteKeeper{remote}, err
	}
	if err := findEnrollments(c); err != nil {
		return nil, err
	}
	state, err := OpenState(c, "")
	if err != nil {
		return nil, err
	}
	l := localKeeper{Server: state, keep: AcceptedFor(c)}
	if c.Server.Enrollment.State == "" {
		return l, nil
	}
	if l.ca, err = keys.OpenAuthority(c, state, nil); err != nil {
		state.Close()
		return nil, err
	}
	return l, nil
}

// A Keeper looks after the state of a running server.
type Keeper struct {
	State *bolt.Server
	Path  string
	Keep  time.Duration
	Ca    *keys.Authority // or nil
}

// snapshotLife is for how long a copy waits to be fetched.
const snapshotLife = 10 * time.Minute
