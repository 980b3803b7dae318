package clientside

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// TestSpelledSessions ends the sessions of two clients whose names are one now: an
// earlier version told them apart.
func TestSpelledSessions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.db")
	first, err := bolt.OpenClient(path, "caf\u00e9")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{}
	c.Client.State = path
	s, err := OpenSessions(c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	names := []string{"cafe\u0301", "caf\u00e9"}
	for _, only := range append(names, "") {
		for _, name := range names {
			if err := s.file.Client(name).Save(t.Context(), msl.ClientRecord{MasterToken: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
		}
		s.Only = only
		if ended, err := s.Forget(t.Context()); err != nil || !slices.Equal(ended, names) {
			t.Errorf("--client %+q: forgot %+q, %v", only, ended, err)
		}
		if all, err := s.List(); err != nil || len(all) != 2 || !all[0].Expires.IsZero() || !all[1].Expires.IsZero() {
			t.Errorf("--client %+q: left %+v, %v", only, all, err)
		}
	}
}
