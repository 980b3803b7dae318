package authkv

import (
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
)

func TestFailingKey(t *testing.T) {
	inner, _ := begun(t)
	s := Open(inner, failing{}, []string{"first"})
	if err := s.Verify(t.Context()); !errors.Is(err, errFailing) || errors.Is(err, kv.ErrForged) {
		t.Errorf("error %v", err)
	}
	err := s.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("a"), nil) })
	if !errors.Is(err, errFailing) {
		t.Errorf("error %v", err)
	}
}

// TestKeyLost renews a store whose key is lost: one that had verified the root before makes it
// anew, and one that had not cannot tell.
func TestKeyLost(t *testing.T) {
	for _, verified := range []bool{true, false} {
		inner, _ := begun(t)
		seen := NewSeen([]string{"first"})
		key := &losingKey{first: kvtest.Secret("key"), second: kvtest.Secret("other")}
		shared := OpenShared(&followed{inner, seen}, key, []string{"first"}, seen)
		if verified {
			if err := shared.Recall(t.Context(), func(kv.Reader) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		key.lost = true
		if err := shared.Verify(t.Context()); errors.Is(err, kv.ErrForged) == verified || verified && err != nil {
			t.Errorf("verified %t: compared with the records: %v", verified, err)
		}
		if err := shared.Renew(t.Context()); errors.Is(err, kv.ErrForged) == verified || verified && err != nil {
			t.Errorf("verified %t: %v", verified, err)
		}
		if _, err := decodeRoot(rootIn(t, inner), kvtest.Secret("other")); (err == nil) != verified {
			t.Errorf("verified %t: the root is by the other key: %v", verified, err)
		}
	}
}
