package state

import (
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
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
