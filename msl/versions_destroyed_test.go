package msl_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A thinnedStore is one in which another program destroyed the first version of each key: a
// handle on it says so, and a look for the keys does not find it.
type thinnedStore struct {
	*soft.Store
	destroyed, looked bool
}

func (s *thinnedStore) Refresh(...string) error {
	s.looked = s.destroyed
	return nil
}

func (s *thinnedStore) Lookup(label string) ([]keystore.Version, error) {
	all, err := s.Store.Lookup(label)
	for i, v := range all {
		if mac, ok := v.Key.(keystore.MAC); ok && v.Number == 1 {
			all[i].Key = thinnedMAC{mac, s}
		}
	}
	if s.looked {
		all = slices.DeleteFunc(all, func(v keystore.Version) bool { return v.Number == 1 })
	}
	return all, err
}

type thinnedMAC struct {
	keystore.MAC
	store *thinnedStore
}

func (m thinnedMAC) Sum(data []byte) ([]byte, error) {
	if m.store.destroyed {
		return nil, keystore.ErrNotFound
	}
	return m.MAC.Sum(data)
}

// TestDestroyedVersion has a token of a version that another program destroyed: its holder
// is told to begin anew, and not to try again forever.
func TestDestroyedVersion(t *testing.T) {
	store := &thinnedStore{Store: soft.New()}
	defer store.Close()
	newVersions(t, store.Store)
	i := findIssuer(t, store)
	token := issueToken(t, i)
	newVersions(t, store.Store)
	if err := i.Versions.Refresh(); err != nil {
		t.Fatal(err)
	}
	store.destroyed = true
	if _, err := i.Open(token); !errors.Is(err, msl.ErrMasterTokenUntrusted) {
		t.Errorf("opened: %v", err)
	}
	if ring := i.Ring(); len(ring) != 1 || ring[0].Version != 2 {
		t.Errorf("ring %+v", ring)
	}
}
