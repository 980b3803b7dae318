package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A Rotator moves the servers of a state to new versions of their keys. Anything it does
// can be interrupted; the next one continues it.
type Rotator struct {
	State  Rotations
	Store  keystore.Admin
	Prefix string
	Keep   time.Duration                    // how long a master token may be used or renewed
	Tell   func(format string, args ...any) // reports progress, one line each
	Sealed func(done, of int)               // called by Rewrap before each entity; may be nil
	Gone   time.Duration                    // after which a silent server no longer counts; zero means 15 seconds
}

// An errBehind says that another rotator is at work.
var errBehind = errors.New("another msl-hsm key rotate or key retire is at work on this state: let it end, or run this again")

// Rotate makes new versions of all keys of a server except its identity, makes sure that
// every server knows them before any uses them, and returns when all use them. It
// completes a rotation that was already begun.
func (r *Rotator) Rotate(ctx context.Context) (err error) {
	defer func() { err = interrupted(ctx, err) }()
	var own int64 // number of the last change made here
	for {
		now, err := r.State.Rotation(ctx)
		if err != nil {
			return err
		}
		if now.Step == state.StepAnnounced && now.Number != own {
			if err := r.leave(ctx, now); err != nil {
				return err
			}
		}
		next, err := r.next(ctx, now)
		if err != nil {
			return err
		}
		if err := r.set(ctx, &next); err != nil {
			return err
		}
		if own = next.Number; next.Step == state.StepDone {
			r.Tell("in use: %s", describe(next.Versions))
			return nil
		}
	}
}

// interrupted says what to do after an interruption, wherever that occurred.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("interrupted; run it again to continue: %w", context.Canceled)
}

// next does what the servers' current step requires, and returns the next one.
func (r *Rotator) next(ctx context.Context, now state.Rotation) (state.Rotation, error) {
	switch now.Step {
	case state.StepAnnounced:
		if err := r.wait(ctx, now, "hold the versions in use"); err != nil {
			return now, err
		}
		// If several rotators would make the versions, only the one whose claim is
		// written does.
		if err := r.set(ctx, &now); err != nil {
			return now, err
		}
		now.Step = state.StepMade
		return now, r.create(now.Versions)
	case state.StepMade:
		if err := r.held(now.Versions); err != nil {
			return now, err
		}
		if err := r.wait(ctx, now, "have the new versions"); err != nil {
			return now, err
		}
		now.Step = state.StepUsed
	case state.StepUsed:
		if err := r.held(now.Versions); err != nil {
			return now, err
		}
		if err := r.wait(ctx, now, "use the new versions"); err != nil {
			return now, err
		}
		clock, err := r.State.Clock(ctx, r.Keep)
		if err != nil {
			return now, err
		}
		now.Step = state.StepDone
		replace(&now, clock.Now)
	default:
		return r.begin(now)
	}
	return now, nil
}

// leave lets another rotator continue, which announced a rotation and may be making its
// versions. It returns nil when that has been silent for as long as a server may be.
func (r *Rotator) leave(ctx context.Context, announced state.Rotation) error {
	r.Tell("a rotation was announced: waiting %v, because its msl-hsm key rotate may still be running", r.gone())
	for end := time.Now().Add(r.gone()); time.Now().Before(end); {
		if err := r.pause(ctx); err != nil {
			return err
		}
		now, err := r.State.Rotation(ctx)
		if err == nil && now.Number != announced.Number {
			err = errBehind
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Rotator) gone() time.Duration { return cmp.Or(r.Gone, 15*time.Second) }

// pause waits until the next look at the servers.
func (r *Rotator) pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(followEvery):
		return nil
	}
}

// begin plans a rotation. Keys that belong together get the same version.
func (r *Rotator) begin(now state.Rotation) (state.Rotation, error) {
	newest, err := keys.Newest(r.Store)
	if err != nil {
		return now, err
	}
	now.Step, now.Former, now.Versions = state.StepAnnounced, map[string]uint32{}, map[string]uint32{}
	for _, together := range keys.Together(r.Prefix) {
		most := uint32(0)
		for _, label := range together {
			if newest[label].Version == 0 {
				return now, keys.Missing(fmt.Errorf("key %q: %w", label, keystore.ErrNotFound), keys.MakeServerKeys)
			}
			now.Former[label] = newest[label].Version
			most = max(most, newest[label].Version)
		}
		for _, label := range together {
			now.Versions[label] = most + 1
		}
	}
	return now, nil
}

// create makes the missing versions.
func (r *Rotator) create(versions map[string]uint32) error {
	newest, err := keys.Newest(r.Store)
	if err != nil {
		return err
	}
	for _, label := range slices.Concat(keys.Together(r.Prefix)...) {
		for have := newest[label]; have.Version < versions[label]; {
			v, err := r.Store.Create(label, have.Algorithm)
			if errors.Is(err, errors.ErrUnsupported) {
				err = fmt.Errorf("%w; for that run msl-hsm key create --set server --rotate --keystore URI, and continue with msl-hsm key rotate when the keys are cloned", err)
			}
			if err != nil {
				return fmt.Errorf("create key %q: %w", label, err)
			}
			have.Version = v.Number
			r.Tell("created %s version %d", label, v.Number)
		}
	}
	return nil
}

// held returns an error if the token does not have versions that were made: it lost them, as one
// that was restored from a backup has, or is a copy that has not received them yet.
func (r *Rotator) held(made map[string]uint32) error {
	newest, err := keys.Newest(r.Store)
	if err != nil {
		return err
	}
	missing := maps.Clone(made)
	maps.DeleteFunc(missing, func(label string, number uint32) bool { return newest[label].Version >= number })
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("the token does not have %s, which this rotation made: copy the keys to it from another token, or if none has them run msl-hsm key create --set server --rotate, and then this again", describe(missing))
}

// replace records when the former versions were last used. Earlier ones were not used later,
// whatever a clock that was ahead said.
func replace(r *state.Rotation, at time.Time) {
	at = at.UTC().Truncate(time.Second)
	if r.Replaced == nil {
		r.Replaced = map[string]map[uint32]time.Time{}
	}
	for label, number := range r.Versions {
		all := map[uint32]time.Time{}
		for earlier, was := range r.Replaced[label] {
			if all[earlier] = was; was.After(at) {
				all[earlier] = at
			}
		}
		all[number] = at // also if a lost key began with that version again
		r.Replaced[label] = all
	}
}

func (r *Rotator) set(ctx context.Context, next *state.Rotation) error {
	next.Number++
	err := r.State.SetRotation(ctx, *next)
	if errors.Is(err, state.ErrConflict) {
		return errBehind
	}
	return err
}

// wait returns when every server has followed a rotation that still exists.
func (r *Rotator) wait(ctx context.Context, now state.Rotation, what string) error {
	w := waiting{gone: r.gone(), seen: map[string]seen{}}
	told := ""
	for {
		servers, err := r.State.Presences(ctx)
		if err != nil {
			return err
		}
		behind := w.behind(servers, now.Number, time.Now())
		line := fmt.Sprintf("%d of %d servers %s%s", len(servers)-len(behind)-len(w.lost), len(servers)-len(w.lost), what, who(behind))
		if line != told {
			r.Tell("%s", line)
			told = line
		}
		if len(behind) == 0 {
			return r.forget(ctx, servers, w.lost)
		}
		if err := r.pause(ctx); err != nil {
			return err
		}
	}
}

// followEvery is how often to look at the servers, which look just as often.
const followEvery = 300 * time.Millisecond

// forget makes lost servers no longer count.
func (r *Rotator) forget(ctx context.Context, servers map[string]state.Presence, lost []string) error {
	for _, id := range lost {
		r.Tell("%s has not been heard from for %v: it is not waited for, and catches up when it is back", servers[id].Name, r.gone())
		if err := r.State.RemovePresence(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// who names the servers that lag.
func who(behind []state.Presence) string {
	if len(behind) == 0 {
		return ""
	}
	var all []string
	for _, p := range behind {
		name := p.Name
		if p.Problem != "" {
			name += ": " + p.Problem
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return "; waiting for " + strings.Join(all, ", ")
}

// waiting remembers when each server last gave a sign. Server clocks differ, so only the
// local one counts.
type waiting struct {
	gone time.Duration
	seen map[string]seen
	lost []string
}

type seen struct {
	beat int64
	at   time.Time
}

// behind returns the servers that have not followed a number, and records those that were
// silent too long.
func (w *waiting) behind(servers map[string]state.Presence, number int64, now time.Time) (behind []state.Presence) {
	w.lost = nil
	for id, p := range servers {
		last, known := w.seen[id]
		if !known || last.beat != p.Beat {
			last = seen{p.Beat, now}
			w.seen[id] = last
		}
		switch {
		case p.Number >= number:
		case now.Sub(last.at) >= w.gone:
			w.lost = append(w.lost, id)
		default:
			behind = append(behind, p)
		}
	}
	return behind
}

// describe lists versions by label.
func describe(versions map[string]uint32) string {
	var all []string
	for label, number := range versions {
		all = append(all, fmt.Sprintf("%s version %d", label, number))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
