package state

import (
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"

	"github.com/msl-hsm/msl-hsm/msl"
)

func TestNextIDWraps(t *testing.T) {
	c, err := NewClient(&kvtest.Memory{}, "default")
	wantErr(t, err, nil)
	key, err := pairKey("default", 1)
	wantErr(t, err, nil)
	err = c.store.Update(t.Context(), func(tx kv.Tx) error {
		return tx.Put(tableCounts, key, largestID{id: maxNumber - 1}.encode())
	})
	wantErr(t, err, nil)
	for _, want := range []int64{maxNumber, 0, 1} {
		if id, err := c.NextID(t.Context(), 1); id != want || err != nil {
			t.Errorf("NextID = %d, %v, want %d", id, err, want)
		}
	}
}

// TestStoredClient reaches two names of an earlier version that are one now.
func TestStoredClient(t *testing.T) {
	store := &kvtest.Memory{}
	names := []string{"cafe\u0301", "caf\u00e9"}
	for _, name := range names {
		wantErr(t, StoredClient(store, name).Save(t.Context(), msl.ClientRecord{KeyExchange: name}), nil)
	}
	got, err := ClientNames(store)
	wantErr(t, err, nil)
	if !slices.Equal(got, names) {
		t.Fatalf("%+q", got)
	}
	for _, name := range names {
		if r, err := StoredClient(store, name).Load(t.Context()); err != nil || r.KeyExchange != name {
			t.Errorf("%+q has the session of %+q, %v", name, r.KeyExchange, err)
		}
	}
}
