package keys

import (
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// A crowded store has another process make a key just before.
type crowded struct {
	*soft.Store
	label string
}

func (c crowded) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	if label == c.label {
		if _, err := c.Store.Create(label, a); err != nil {
			return keystore.Version{}, err
		}
	}
	return c.Store.Create(label, a)
}

// TestCompleteTogether has two commands make the same set: one of them ends, no key has a
// version too many, and the next one completes the set.
func TestCompleteTogether(t *testing.T) {
	for _, rotate := range []bool{false, true} {
		store := soft.New()
		defer store.Close()
		set, err := KeySet("server", "msl")
		if err != nil {
			t.Fatal(err)
		}
		want := uint32(1)
		quiet := func(string, Provision, uint32) {}
		if rotate {
			want = 2
			if err := Complete(store, set, false, quiet); err != nil {
				t.Fatal(err)
			}
		}
		err = Complete(crowded{store, "msl-issuer-mac"}, set, rotate, quiet)
		if err == nil || !strings.Contains(err.Error(), `"msl-issuer-mac": another command makes it at this moment: let it end, and run this again`) {
			t.Errorf("rotate %v: %v", rotate, err)
		}
		if err := Complete(store, set, false, quiet); err != nil {
			t.Fatal(err)
		}
		all, err := Newest(store)
		if k := all["msl-issuer-mac"]; k.Version != want || len(all) != len(set) || err != nil {
			t.Errorf("rotate %v: version %d of %d keys, %v", rotate, k.Version, len(all), err)
		}
	}
}

// An untold store lists one key, and what its device does not tell of it.
type untold struct{ *soft.Store }

func (untold) List() ([]keystore.Info, error) {
	return []keystore.Info{{Label: "msl-issuer-mac", Version: 1, Untold: []string{"CKA_VALUE_LEN"}}}, nil
}

// TestCompleteUntold finds a key of which the device does not tell what it is for: that is no
// reason to destroy it.
func TestCompleteUntold(t *testing.T) {
	set, err := KeySet("server", "msl")
	if err != nil {
		t.Fatal(err)
	}
	store := soft.New()
	defer store.Close()
	err = Complete(untold{store}, set, false, func(string, Provision, uint32) {})
	if err == nil || !strings.Contains(err.Error(), "does not report CKA_VALUE_LEN") || !strings.Contains(err.Error(), "do not destroy it") {
		t.Errorf("%v", err)
	}
}
