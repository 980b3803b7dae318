package statetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// testRotations checks that the state keeps the rotation of keys and the servers that
// follow it, and that only one of several concurrent changes of a rotation succeeds.
func testRotations(t *testing.T, o *one) {
	ctx := context.Background()
	now, err := o.Rotation(ctx)
	must(t, err)
	if now.Number != 0 || now.Step != "" {
		t.Errorf("at first: %+v", now)
	}
	at := time.Unix(1700000000, 0).UTC()
	next := state.Rotation{Number: 1, Step: state.StepMade, Former: map[string]uint32{"a": 1}, Versions: map[string]uint32{"a": 2},
		Replaced: map[string]map[uint32]time.Time{"a": {1: at}}}
	var changed atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			switch err := o.SetRotation(ctx, next); {
			case err == nil:
				changed.Add(1)
			case !errors.Is(err, state.ErrConflict):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := changed.Load(); n != 1 {
		t.Errorf("%d changed the rotation", n)
	}
	must(t, o.SetPresence(ctx, "one", state.Presence{Name: "first", Beat: 1}), o.SetPresence(ctx, "two", state.Presence{}),
		o.SetPresence(ctx, "one", state.Presence{Name: "first", Beat: 2, Number: 1}), o.RemovePresence(ctx, "two"), o.RemovePresence(ctx, "none"))
	o.twice(func() {
		now, err := o.Rotation(ctx)
		must(t, err)
		if now.Number != 1 || !now.Pending() || now.Former["a"] != 1 || now.Versions["a"] != 2 || !now.Replaced["a"][1].Equal(at) {
			t.Errorf("%+v", now)
		}
		servers, err := o.Presences(ctx)
		must(t, err)
		if len(servers) != 1 || servers["one"] != (state.Presence{Name: "first", Beat: 2, Number: 1}) {
			t.Errorf("%v", servers)
		}
	})
}

// testReseal checks that Reseal replaces keys with the same keys, and nothing else.
func testReseal(t *testing.T, o *one) {
	ctx := context.Background()
	old := msl.SealedPSK{Encryption: []byte("e1"), MAC: []byte("m1"), Wrapping: []byte("w1")}
	again := msl.SealedPSK{Encryption: []byte("e2"), MAC: []byte("m2"), Wrapping: []byte("w2")}
	must(t, o.AddEntity(state.EntityRecord{Identity: "camera", Scheme: "PSK", PSK: &old}), o.RevokeEntity("camera"))
	before, err := o.Record(ctx, "camera")
	must(t, err, o.Reseal(ctx, "camera", old, again))
	for name, want := range map[string]error{"camera": state.ErrConflict, "nobody": state.ErrUnknown} {
		if err := o.Reseal(ctx, name, old, again); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o.twice(func() {
		e, err := o.Record(ctx, "camera")
		must(t, err)
		if string(e.PSK.Wrapping) != "w2" || !e.Revoked || !e.Created.Equal(before.Created) || e.Scheme != "PSK" {
			t.Errorf("%+v", e)
		}
	})
}
