package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A board is what rotators and servers agree on.
type board struct {
	mu       sync.Mutex
	now      state.Rotation
	servers  map[string]state.Presence
	entities []state.EntityRecord
	steps    []state.Step
	cut      int           // after so many steps the rotator is cut off, or 0
	ahead    time.Duration // the clocks of the servers
	lapsed   time.Duration // time in which no server ran
}

var errCut = errors.New("cut off")

func (b *board) Rotation(context.Context) (state.Rotation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now, nil
}

func (b *board) SetRotation(_ context.Context, r state.Rotation) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut--; b.cut == 0 {
		return errCut
	}
	if r.Number != b.now.Number+1 {
		return state.ErrConflict
	}
	b.now, b.steps = r, append(b.steps, r.Step)
	return nil
}

func (b *board) Presences(context.Context) (map[string]state.Presence, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.servers), nil
}

func (b *board) RemovePresence(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.servers, id)
	return nil
}

func (b *board) Clock(_ context.Context, keep time.Duration) (state.Clock, error) {
	now := time.Now().Add(b.ahead)
	return state.Clock{Now: now, Ended: now.Add(-keep - time.Hour - b.lapsed)}, nil
}

func (b *board) Entities() ([]state.EntityRecord, error) { return b.entities, nil }

func (b *board) Reseal(_ context.Context, identity string, _, again msl.SealedPSK) error {
	for i := range b.entities {
		if b.entities[i].Identity == identity {
			b.entities[i].PSK = &again
		}
	}
	return nil
}

func (b *board) Close() error { return nil }

// serve follows as a server does that needs some time for each step.
func (b *board) serve(ctx context.Context, id string, takes time.Duration) {
	for n := int64(1); ctx.Err() == nil; n++ {
		b.mu.Lock()
		number := b.now.Number
		b.mu.Unlock()
		for range 4 {
			time.Sleep(takes / 4)
			b.mu.Lock()
			p := b.servers[id]
			p.Name, p.Beat = id, p.Beat+1
			b.servers[id] = p
			b.mu.Unlock()
		}
		b.mu.Lock()
		p := b.servers[id]
		p.Number = number
		b.servers[id] = p
		b.mu.Unlock()
	}
}

func newBoard() *board { return &board{servers: map[string]state.Presence{}} }

func serverKeys(t *testing.T) *soft.Store {
	t.Helper()
	s := soft.New()
	t.Cleanup(func() { s.Close() })
	set, err := keys.KeySet("server", "msl")
	if err == nil {
		err = keys.Complete(s, set, false, func(string, keys.Provision, uint32) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newest(t *testing.T, s keystore.Admin) map[string]uint32 {
	t.Helper()
	all, err := keys.Newest(s)
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]uint32{}
	for label, k := range all {
		numbers[label] = k.Version
	}
	return numbers
}

// TestRotate waits for servers that take their time, and not for those that are gone.
func TestRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store := newBoard(), serverKeys(t)
		b.servers["killed"] = state.Presence{Name: "killed", Beat: 7}
		ctx, stop := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		defer serving.Wait()
		defer stop()
		b.servers["quick"], b.servers["slow"] = state.Presence{Name: "quick"}, state.Presence{Name: "slow"}
		for id, takes := range map[string]time.Duration{"quick": time.Second, "slow": 40 * time.Second} {
			serving.Go(func() { b.serve(ctx, id, takes) })
		}
		var told []string
		r := &Rotator{State: b, Store: store, Prefix: "msl", Tell: func(f string, a ...any) { told = append(told, fmt.Sprintf(f, a...)) }}
		start := time.Now()
		if err := r.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 80*time.Second || took > 5*time.Minute {
			t.Errorf("took %v", took)
		}
		stop()
		serving.Wait()
		if _, there := b.servers["killed"]; there {
			t.Error("a server that is gone is still waited for")
		}
		text := strings.Join(told, "\n")
		if !strings.Contains(text, "waiting for slow") || !strings.Contains(text, "2 of 2 servers use the new versions") ||
			strings.Count(text, "killed has not been heard from for 15s: it is not waited for, and catches up when it is back") != 1 {
			t.Error(text)
		}
		for label, n := range newest(t, store) {
			if want := uint32(2); n != want && label != "msl-identity" {
				t.Errorf("%s has version %d", label, n)
			}
		}
		if at := b.now.Replaced["msl-issuer-mac"][2]; at.Before(start) {
			t.Errorf("version 1 is replaced since %v", at)
		}
	})
}

// TestRotateCutOff cuts a rotation off before and after each step: the next one ends the
// same rotation.
func TestRotateCutOff(t *testing.T) {
	store := serverKeys(t)
	for cut := 1; cut <= 5; cut++ {
		synctest.Test(t, func(t *testing.T) {
			b, before := newBoard(), newest(t, store)["msl-seal-mac"]
			b.cut = cut
			r := &Rotator{State: b, Store: store, Prefix: "msl", Tell: func(string, ...any) {}}
			if err := r.Rotate(t.Context()); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			if err := r.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := newest(t, store)["msl-seal-mac"]; n != before+1 || fmt.Sprint(slices.Compact(b.steps)) != "[announced made used done]" {
				t.Errorf("cut off at %d: version %d after %v", cut, n, b.steps)
			}
		})
	}
}

// TestRotateLost has the token lose a version before or after it is used: the rotation does not end
// until the token has it.
func TestRotateLost(t *testing.T) {
	for step, cut := range map[state.Step]int{state.StepMade: 4, state.StepUsed: 5} {
		b, store := newBoard(), serverKeys(t)
		b.cut = cut
		r := &Rotator{State: b, Store: store, Prefix: "msl", Tell: func(string, ...any) {}}
		if err := r.Rotate(t.Context()); !errors.Is(err, errCut) || b.now.Step != step {
			t.Fatal(b.now.Step, err)
		}
		if err := store.Destroy("msl-seal-mac", 2); err != nil {
			t.Fatal(err)
		}
		if err := r.Rotate(t.Context()); err == nil || !strings.Contains(err.Error(), "msl-seal-mac version 2") || b.now.Step != step {
			t.Errorf("%s, without a version: %v", b.now.Step, err)
		}
		if _, err := store.Create("msl-seal-mac", keystore.SealMAC256); err != nil {
			t.Fatal(err)
		}
		if err := r.Rotate(t.Context()); err != nil || b.now.Step != state.StepDone {
			t.Errorf("%s, with it again: %v", b.now.Step, err)
		}
	}
}

// A slowStore takes a second to make a key.
type slowStore struct{ keystore.Admin }

func (s slowStore) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	time.Sleep(time.Second)
	return s.Admin.Create(label, a)
}

// TestRotateAtOnce has several rotators begin at the same time, and one of them while another
// makes the versions: there is one new version.
func TestRotateAtOnce(t *testing.T) {
	store := serverKeys(t)
	for _, late := range []time.Duration{0, time.Second, 6 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			b, before := newBoard(), newest(t, store)["msl-seal-mac"]
			b.servers["slow"] = state.Presence{Name: "slow"}
			ctx, stop := context.WithCancel(t.Context())
			var serving, rotating sync.WaitGroup
			serving.Go(func() { b.serve(ctx, "slow", 5*time.Second) })
			var done atomic.Int32
			for i := range 3 {
				rotating.Go(func() {
					time.Sleep(time.Duration(i) * late)
					r := &Rotator{State: b, Store: slowStore{store}, Prefix: "msl", Tell: func(string, ...any) {}}
					switch err := r.Rotate(t.Context()); {
					case err == nil:
						done.Add(1)
					case !errors.Is(err, errBehind):
						t.Error(err)
					}
				})
			}
			rotating.Wait()
			stop()
			serving.Wait()
			if n := newest(t, store)["msl-seal-mac"]; n != before+1 || done.Load() == 0 {
				t.Errorf("%v apart: version %d, and %d ended it", late, n, done.Load())
			}
		})
	}
}

// TestRotateTogether gives keys that belong together the same version, where a former
// rotation was cut off between them.
func TestRotateTogether(t *testing.T) {
	b, store := newBoard(), serverKeys(t)
	if _, err := store.Create("msl-seal-session", keystore.SealSession256); err != nil {
		t.Fatal(err)
	}
	if err := (&Rotator{State: b, Store: store, Prefix: "msl", Tell: func(string, ...any) {}}).Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]uint32{"msl-seal-mac": 3, "msl-seal-session": 3, "msl-seal-wrapping": 3, "msl-issuer-mac": 2} {
		if n := newest(t, store)[label]; n != want {
			t.Errorf("%s has version %d, want %d", label, n, want)
		}
	}
}

// TestRotateTwice has a second rotator change the state meanwhile.
func TestRotateTwice(t *testing.T) {
	b := newBoard()
	r := &Rotator{State: b, Store: serverKeys(t), Prefix: "msl", Tell: func(string, ...any) {}}
	behind := b.now
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.set(t.Context(), &behind); !errors.Is(err, errBehind) {
		t.Error(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	b.servers["slow"] = state.Presence{Name: "slow"}
	if err := r.Rotate(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "run it again to continue") {
		t.Error(err)
	}
}

// TestReplace has a clock that was ahead at an earlier rotation, and a version that was there
// before its key was lost.
func TestReplace(t *testing.T) {
	now := time.Unix(1e9, 0).UTC()
	before, ahead := now.Add(-time.Hour), now.Add(time.Hour)
	r := state.Rotation{Versions: map[string]uint32{"a": 4}, Replaced: map[string]map[uint32]time.Time{"a": {2: before, 3: ahead, 4: before}}}
	replace(&r, now)
	if got, want := r.Replaced["a"], (map[uint32]time.Time{2: before, 3: now, 4: now}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
