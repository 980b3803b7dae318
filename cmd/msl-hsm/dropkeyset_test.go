package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// TestDropKeySet gives a name to another TPM: the pre-shared keys that went into
// the one before are gone, and those of a device that only renewed its key stay.
func TestDropKeySet(t *testing.T) {
	s, err := bolt.OpenServer(filepath.Join(t.TempDir(), "server.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	given := time.Now().Add(-time.Hour)
	keys := &msl.SealedPSK{Encryption: []byte("e"), MAC: []byte("m"), Wrapping: []byte("w")}
	if err := s.AddEntity(state.EntityRecord{Identity: "cam-psk", Scheme: "PSK", PSK: keys, Created: given}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		since time.Time
		stays bool
	}{
		{given.Add(-time.Hour), true},
		{given.Add(time.Minute), false},
		{given.Add(2 * time.Minute), false}, // it is gone already
	} {
		if err := dropKeySet(s, enroll.Identity{Name: "cam", Since: step.since}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Entity(t.Context(), "cam-psk"); (err == nil) != step.stays {
			t.Errorf("since %v: %v", step.since, err)
		}
	}
}
