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

// TestVersionInUseDestroyed has another program destroy the version in use: tokens are made
// with the one that remains, and those of the lost one are refused so that devices begin anew.
func TestVersionInUseDestroyed(t *testing.T) {
	one, two := twoStores(t)
	newVersions(t, one)
	if err := two.Refresh(); err != nil {
		t.Fatal(err)
	}
	i := findIssuer(t, two)
	former := issueToken(t, i)
	var lost []uint32
	i.Versions.Lost = func(version uint32, used bool) {
		if used {
			lost = append(lost, version)
		}
	}
	for _, role := range []keystore.Role{keystore.RoleIssuerMAC, keystore.RoleServiceMAC} {
		if err := one.Destroy(role.Label("msl"), 2); err != nil {
			t.Fatal(err)
		}
	}
	if err := two.Refresh(); err != nil {
		t.Fatal(err)
	}
	token := issueToken(t, i)
	if _, err := i.IssueUser("user", token, nil); err != nil {
		t.Error(err)
	}
	if ring := i.Ring(); len(ring) != 1 || ring[0].Version != 1 || !slices.Equal(lost, []uint32{2}) {
		t.Errorf("ring %+v, lost %v", ring, lost)
	}
	s, err := findIssuer(t, one).Open(token)
	if err != nil {
		t.Fatal(err)
	}
	s.Release()
	if _, err := i.Open(former); !errors.Is(err, msl.ErrMasterTokenUntrusted) {
		t.Errorf("opened: %v", err)
	}
}

// TestVersionsSum tries the version in use when that was destroyed, as a health check does: it
// must find the other one by itself, since no message may come before it does.
func TestVersionsSum(t *testing.T) {
	one, two := twoStores(t)
	newVersions(t, one)
	if err := two.Refresh(); err != nil {
		t.Fatal(err)
	}
	v, err := msl.FindVersions(two, "msl-service-encryption", "msl-service-mac")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(one.Destroy("msl-service-mac", 2), two.Refresh()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Sum(nil); err != nil || v.All()[0].Version != 1 {
		t.Errorf("%v, ring %+v", err, v.All())
	}
	if err := errors.Join(one.Destroy("msl-service-mac", 0), two.Refresh()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Sum(nil); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("with no version left: %v", err)
	}
}

// failingStore cannot look up keys.
type failingStore struct {
	*soft.Store
	err error
}

func (s *failingStore) Refresh(...string) error { return s.err }

// TestVersionsUnknown tries the version in use when that was destroyed, and the device fails: the
// error is that of the device, and not that there is no such key.
func TestVersionsUnknown(t *testing.T) {
	one, two := twoStores(t)
	failing := &failingStore{Store: two, err: keystore.ErrUnavailable}
	v, err := msl.FindVersions(failing, "msl-service-encryption", "msl-service-mac")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(one.Destroy("msl-service-mac", 0), two.Refresh()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Sum(nil); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("the error of the device is %v", err)
	}
}
