package statetest

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl/state"
)

// testPairs checks that the state keeps which keys it was used with, the current ones as
// the newest.
func testPairs(t *testing.T, o *one) {
	ctx := context.Background()
	wants := func(numbers ...uint32) {
		t.Helper()
		o.twice(func() {
			p, err := o.Pair(ctx)
			must(t, err)
			if got := slices.Sorted(maps.Keys(p)); !slices.Equal(got, numbers) {
				t.Errorf("versions %v, want %v", got, numbers)
			}
		})
	}
	wants()
	must(t, o.AddPair(ctx, state.Pair{1: []byte("a")}))
	must(t, o.AddPair(ctx, state.Pair{2: []byte("b"), 3: []byte("c")}))
	wants(1, 2, 3)
	must(t, o.AddPair(ctx, state.Pair{2: []byte("again")}))
	wants(1, 2)
	if p, err := o.Pair(ctx); err != nil || string(p[2]) != "again" || string(p[1]) != "a" {
		t.Errorf("%v, %v", p, err)
	}
	many := state.Pair{}
	for version := range uint32(70) {
		many[version+10] = []byte("x")
	}
	must(t, o.AddPair(ctx, many))
	if p, err := o.Pair(ctx); err != nil || len(p) != 64 || p[79] == nil || p[15] != nil {
		t.Errorf("%d versions, %v", len(p), err)
	}
	must(t, o.ForgetPair(ctx))
	wants()
}
