package authkv

import (
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
)

// A losingKey is one whose first version is lost at some point.
type losingKey struct {
	first, second Key
	lost          bool
}

func (k *losingKey) Tag(data []byte) ([]byte, error) {
	if k.lost {
		return k.second.Tag(data)
	}
	return k.first.Tag(data)
}

func (k *losingKey) Check(data, tag []byte) (bool, error) {
	if fits, err := k.second.Check(data, tag); fits || err != nil || k.lost {
		return fits, err
	}
	return k.first.Check(data, tag)
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
