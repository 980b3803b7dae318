package serverside

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// followEvery is how often a server checks whether the keys rotate. It reads its copy of
// the state.
const followEvery = 500 * time.Millisecond

// A follower follows the rotations of a state, and reports how far it has come.
type follower struct {
	live     *Live
	id       string
	presence state.Presence
	settled  bool // nothing to do until the number changes

	lapsed bool   // a version of the key is gone that may still authenticate the state
	failed string // why no other version does yet
}

// Follow makes the server follow the rotations of its keys, until the returned function
// is called. It returns when the others can know that this server exists.
func (l *Live) Follow(log *slog.Logger) (end func(), err error) {
	host, _ := os.Hostname()
	f := &follower{live: l, id: rand.Text(), presence: state.Presence{Name: fmt.Sprintf("%s (process %d)", host, os.Getpid())}}
	ctx, cancel := context.WithCancel(context.Background())
	err = f.alone(ctx)
	if err == nil {
		err = f.step(ctx, log, true)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	var running sync.WaitGroup
	running.Go(func() { f.run(ctx, log) })
	return func() {
		cancel()
		running.Wait()
		f.leave(log)
	}, nil
}

// alone forgets the other servers of a state in a file, which must have been killed: only
// one server at a time has it open. Then nobody has to wait until they count as gone.
func (f *follower) alone(ctx context.Context) error {
	s := f.live.Service().State
	if s.File == nil {
		return nil
	}
	others, err := s.Presences(ctx)
	if err != nil {
		return err
	}
	for id := range others {
		if err := s.RemovePresence(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) run(ctx context.Context, log *slog.Logger) {
	every := time.NewTicker(followEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			_ = f.step(ctx, log, false) // the next one tries again
		}
	}
}

// leave removes the presence; without etcd it stays, and is later recognized as old.
func (f *follower) leave(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.live.Service().State.RemovePresence(ctx, f.id); err != nil {
		log.Debug("could not tell the other servers that this one is stopping", "error", exit.OneLine(err))
	}
}

// step follows the newest rotation, and records that.
func (f *follower) step(ctx context.Context, log *slog.Logger, first bool) error {
	if done, err := f.follow(ctx, log, first); !done {
		return err
	}
	f.presence.Beat++
	return f.live.Service().State.SetPresence(ctx, f.id, f.presence)
}

// follow follows the newest rotation, unless that was done or its record cannot be read. A
// reload must not replace the service meanwhile.
func (f *follower) follow(ctx context.Context, log *slog.Logger, first bool) (done bool, err error) {
	f.live.reloading.Lock()
	defer f.live.reloading.Unlock()
	s := f.live.Service()
	if s.keysLost.Swap(false) {
		s.MSL.Forget() // the tokens of the devices open again what remains
		f.lapsed = true
	}
	if f.lapsed {
		f.authenticate(ctx, log, s)
	}
	r, err := s.State.Rotation(ctx)
	if err != nil || !first && f.settled && r.Number == f.presence.Number {
		return false, err
	}
	problem := ""
	if err := follow(s, r); err != nil {
		problem = exit.OneLine(err)
	}
	if !first {
		f.tell(log, s, r, problem)
	}
	if f.presence.Problem = problem; problem == "" {
		f.presence.Number = r.Number
	}
	if problem == "" && !r.Pending() && !first {
		f.live.pair(f.live.now.Load())
	}
	f.settled = problem == "" && (r.Step == state.StepDone || r.Step == "")
	return true, nil
}

// authenticate makes another version than the one that is gone authenticate the state and the
// records of devices, while it is known that they are authentic. If that fails, the next step tries
// again: after a restart nothing could check them.
func (f *follower) authenticate(ctx context.Context, log *slog.Logger, s *Service) {
	err := s.State.Reauthenticate(ctx)
	if err == nil && s.Devices != nil {
		err = s.Devices.Records.Renew(ctx)
	}
	if err == nil {
		f.lapsed, f.failed = false, ""
	} else if problem := exit.OneLine(err); problem != f.failed && ctx.Err() == nil {
		log.Error("the state cannot be authenticated with the version of the key that is left: do not restart the server until it can", "error", problem)
		f.failed = problem
	}
}

func (f *follower) tell(log *slog.Logger, s *Service, r state.Rotation, problem string) {
	switch {
	case problem != "" && problem != f.presence.Problem:
		log.Error("this server cannot follow the key rotation yet", "step", r.Step, "error", problem)
	case problem == "" && r.Number != f.presence.Number && r.Step != state.StepDone:
		log.Info("keys rotate", "step", r.Step, "issuer_key_version", s.MSL.Issuer.Ring()[0].Version)
	}
}
