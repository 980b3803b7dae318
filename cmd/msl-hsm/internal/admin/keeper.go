package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// AcceptedFor is how long a master token may be used or renewed.
func AcceptedFor(c *config.Config) time.Duration {
	s := &c.Server
	return (&msl.Issuer{Lifetime: s.Lifetime, RenewExpired: s.RenewExpired, UserLifetime: s.UserLifetime}).AcceptedFor()
}

// A StateReport summarizes the state of a server.
type StateReport struct {
	state.Summary
	Enrollments map[enroll.State]int `json:"enrollments,omitempty"` // records by state
	Authentic   bool                 `json:"authentic"`             // changed by nobody without the keys of the server
}

// reportOn reads the whole state.
func reportOn(state *State, ca *keys.Authority) (r StateReport, err error) {
	r.Authentic = state.Authentic()
	if r.Summary, err = state.Check(); err != nil || ca == nil {
		return r, err
	}
	if f, ok := ca.Records.(*enroll.File); ok {
		r.Authentic = r.Authentic && f.Verdict.Authentic
	}
	r.Enrollments, err = ca.Records.Check()
	return r, err
}

// A Keeper maintains a state: in the file itself or, while a server has it open,
// through that server.
type Keeper interface {
	Check() (StateReport, error)
	Prune() (state.Forgotten, error)
	Close() error
}

type localKeeper struct {
	*State
	ca *keys.Authority // or nil
	c  *config.Config
}

type remoteKeeper struct{ *Running }

// Keeper connects to a running server, or opens the files if there is none.
func (r *Keys) Keeper() (Keeper, error) {
	c := r.c
	remote, err := dialFile(c)
	if remote != nil || err != nil {
		return remoteKeeper{remote}, err
	}
	if err := findEnrollments(c); err != nil {
		return nil, err
	}
	state, err := r.openState()
	if err != nil {
		return nil, err
	}
	l := localKeeper{State: state, c: c}
	if !c.Server.Enrollment.On() || c.Server.Enrollment.Shared() != c.Server.State.Shared() {
		return l, nil
	}
	if l.ca, err = openDevices(c, state, nil); err != nil {
		state.Close()
		return nil, err
	}
	return l, nil
}

func (l localKeeper) Check() (StateReport, error) { return reportOn(l.State, l.ca) }

func (l localKeeper) Prune() (state.Forgotten, error) {
	forgotten, err := l.Forget(context.Background(), AcceptedFor(l.c))
	return forgotten, Tell(l.c, nil, statePrune, "", err)
}

func (l localKeeper) Close() error {
	if l.ca != nil {
		defer l.ca.Close()
	}
	return l.State.Close()
}

func (r remoteKeeper) Check() (report StateReport, err error) {
	err = r.callLong(http.MethodPost, "/state/check", &report)
	return report, err
}

func (r remoteKeeper) Prune() (f state.Forgotten, err error) {
	err = r.callLong(http.MethodPost, "/state/prune", &f)
	return f, err
}
