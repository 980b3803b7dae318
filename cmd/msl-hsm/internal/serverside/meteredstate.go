package serverside

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A serverState is what a server needs from its state.
type serverState interface {
	msl.State
	msl.TokenDates
	msl.Forgetter
}

// A meteredState measures the steps in a state, and remembers the last one that failed. An outage
// is logged when it begins, and when something was written again.
type meteredState struct {
	serverState
	to     *metrics.Set
	since  *atomic.Pointer[time.Time] // as in base
	failed *outage.Outage             // of stateFailure
	lost   *outage.Outage             // as logged
	log    *slog.Logger               // nil if the state itself logs its outages
}

// A stateFailure is a step in the state that failed.
type stateFailure struct {
	error
	operation string
	began     time.Time
}

func untold() {}

// slowStep is the time of a step from which the state is too slow, and not the peer whose time
// for a message ended during the step.
const slowStep = time.Second

// note measures a step that began then. A verdict on a token is not a failure.
func (s meteredState) note(operation string, began time.Time, err error) {
	if err == nil {
		s.worked(operation, began)
	}
	now := time.Now()
	verdict, peersTime := msl.Code(0), errors.Is(err, context.DeadlineExceeded) && now.Sub(began) < slowStep
	if errors.As(err, &verdict) || errors.Is(err, keystore.ErrNotFound) || errors.Is(err, context.Canceled) || peersTime {
		err = nil
	}
	s.to.State(operation, now.Sub(began), err)
	if err == nil || errors.Is(err, state.ErrNewer) { // one record; others can be used
		return
	}
	if since := s.since.Load(); since != nil && began.Before(*since) { // it was lost, and is back
		return
	}
	failure := &stateFailure{err, operation, began}
	s.failed.Failed(failure, untold)
	if s.log != nil && !errors.Is(err, context.DeadlineExceeded) {
		s.lost.Failed(failure, func() {
			s.log.Error("the state cannot be used: free disk space, or fix the cause of the error", "error", err)
		})
	}
}

// worked notes that a step that began then succeeded. Only one that writes shows that others do,
// too.
func (s meteredState) worked(operation string, began time.Time) {
	if endedBy(operation, s.failed) {
		s.failed.Worked(began, untold)
	}
	if endedBy(operation, s.lost) {
		s.lost.Worked(began, func() { s.log.Info("the state can be used again") })
	}
}

// endedBy reports whether a step that succeeds shows that an outage is over.
func endedBy(operation string, o *outage.Outage) bool {
	_, err := o.Last()
	last, out := err.(*stateFailure)
	return out && (operation == last.operation || operation == trial || operation == "accept-id" || operation == "renew")
}

// trial is a write to the state to find out whether that works again.
const trial = "trial"

// Revoked is measured.
func (s meteredState) Revoked(ctx context.Context, identity, user string) error {
	began := time.Now()
	err := s.serverState.Revoked(ctx, identity, user)
	s.note("revoked", began, err)
	return err
}

// AcceptID is measured.
func (s meteredState) AcceptID(ctx context.Context, identity string, serial, id int64) error {
	began := time.Now()
	err := s.serverState.AcceptID(ctx, identity, serial, id)
	s.note("accept-id", began, err)
	return err
}

// Renewable is measured.
func (s meteredState) Renewable(ctx context.Context, identity string, serial, sequence int64) error {
	began := time.Now()
	err := s.serverState.Renewable(ctx, identity, serial, sequence)
	s.note("renewable", began, err)
	return err
}

// Renew is measured.
func (s meteredState) Renew(ctx context.Context, identity string, serial, sequence int64) (int64, error) {
	began := time.Now()
	newest, err := s.serverState.Renew(ctx, identity, serial, sequence)
	s.note("renew", began, err)
	return newest, err
}

// Expect is measured.
func (s meteredState) Expect(ctx context.Context, until time.Time) error {
	began := time.Now()
	err := s.serverState.Expect(ctx, until)
	s.note("expect", began, err)
	return err
}
