package soft

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestRefresh finds what another process changed in the file: handles on keys that are
// still there continue, and those on others say that they are gone.
func TestRefresh(t *testing.T) {
	cheap := Config{Cost: Cost{Time: 1, Memory: 8, Threads: 1}, CheapForTests: true}
	path := filepath.Join(t.TempDir(), "keys")
	s, err := cheap.Create(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first, errFirst := s.Create("mac", keystore.HMACSHA256)
	gone, errGone := s.Create("gone", keystore.HMACSHA256)
	other, errOpen := cheap.Open(path, []byte("passphrase"))
	if err := errors.Join(errFirst, errGone, errOpen); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, err = other.Create("mac", keystore.HMACSHA256)
	if err := errors.Join(err, other.Destroy("gone", 0), s.Refresh()); err != nil {
		t.Fatal(err)
	}
	if ring, err := s.Lookup("mac"); err != nil || len(ring) != 2 || ring[0].Number != 2 {
		t.Errorf("%v, %v", ring, err)
	}
	if _, err := first.Key.(keystore.MAC).Sum(nil); err != nil {
		t.Error(err)
	}
	if _, err := gone.Key.(keystore.MAC).Sum(nil); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a key that was destroyed: %v", err)
	}
	if _, err := s.Lookup("gone"); !errors.Is(err, keystore.ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
		t.Errorf("make a key after that: %v", err)
	}

	dear := cheap
	dear.Cost.Time = 2
	changed, err := dear.Open(path, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer changed.Close()
	if _, err := changed.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	if err := s.Refresh(); !errors.Is(err, keystore.ErrBusy) {
		t.Errorf("a file with another cost: %v", err)
	}
	if err := New().Refresh(); err != nil {
		t.Errorf("without a file: %v", err)
	}
}
