package bolt

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/msl-hsm/msl-hsm/msl"
)

// formerFile unpacks a file that an earlier version wrote.
func formerFile(t *testing.T, name string) string {
	t.Helper()
	packed, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func reopened(t *testing.T, path string) *Server {
	t.Helper()
	s, err := ReopenServer(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestFormerServer opens a server's state written by an earlier version, reads every
// record, and continues with it.
func TestFormerServer(t *testing.T) {
	path := formerFile(t, "server.db")
	if got, err := Attached(path); err != nil || string(got) != "what is attached" {
		t.Errorf("attached is %q, %v", got, err)
	}
	s := reopened(t, path)
	compareRecords(t, s)
	for range 2 {
		compareVerdicts(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = reopened(t, path)
	}
	if err := errors.Join(s.RemoveEntity("device"), s.RevokeUser("ann@example.com"), s.AcceptID(t.Context(), "device", 1, 8)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Check(); err != nil {
		t.Error(err)
	}
	s.Close()
	s = reopened(t, path)
	if err := s.Revoked(t.Context(), "device", ""); err != msl.ErrMasterTokenIdentityRevoked {
		t.Error(err)
	}
	if err := s.AcceptID(t.Context(), "device", 1, 8); err != msl.ErrMessageReplayed {
		t.Error(err)
	}
}

// compareRecords compares the lists with those of the earlier version.
func compareRecords(t *testing.T, s *Server) {
	t.Helper()
	entities, errEntities := s.Entities()
	users, errUsers := s.Users()
	sum, errSummary := s.Summary()
	began, _, errDates := s.CountSince(t.Context(), "nobody", "")
	got, err := json.Marshal(map[string]any{"entities": entities, "users": users, "summary": sum, "began": began.UTC()})
	want, errWant := os.ReadFile("testdata/server.json")
	if err := errors.Join(errEntities, errUsers, errSummary, errDates, err, errWant); err != nil {
		t.Fatal(err)
	}
	compareJSON(t, got, want)
}

func compareJSON(t *testing.T, got, want []byte) {
	t.Helper()
	var g, w any
	if err := errors.Join(json.Unmarshal(got, &g), json.Unmarshal(want, &w)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w, g); d != "" {
		t.Error(d)
	}
}

// compareVerdicts compares the answers that a server gets from its state.
func compareVerdicts(t *testing.T, s *Server) {
	t.Helper()
	ctx := t.Context()
	for identity, want := range map[string]error{
		"device": nil, "back": nil, "cam-1": nil, "gone": msl.ErrMasterTokenIdentityRevoked, "bad": msl.ErrMasterTokenIdentityRevoked,
		"roots.1": msl.ErrMasterTokenIdentityRevoked, "CN=never registered": msl.ErrMasterTokenIdentityRevoked,
	} {
		if err := s.Revoked(ctx, identity, ""); err != want {
			t.Errorf("Revoked(%q) = %v, want %v", identity, err, want)
		}
	}
	for user, want := range map[string]error{"ann@example.com": nil, "bob@example.com": msl.ErrUserIDTokenRevoked,
		"cat@example.com": msl.ErrUserIDTokenRevoked, "eve@example.com": msl.ErrUserIDTokenRevoked} {
		if err := s.Revoked(ctx, "device", user); err != want {
			t.Errorf("Revoked(%q) = %v, want %v", user, err, want)
		}
	}
	if e, err := s.Entity(ctx, "cam-1"); err != nil || e.Identity != "cam" || e.PSK == nil {
		t.Errorf("%+v, %v", e, err)
	}
	if user, err := s.Verify(ctx, "ann@example.com", []byte("correct horse 2")); err != nil || user != "ann@example.com" {
		t.Errorf("%q, %v", user, err)
	}
	for serial := range int64(120) {
		if err := s.AcceptID(ctx, "device", serial, 7); err != msl.ErrMessageReplayed {
			t.Errorf("serial number %d: %v", serial, err)
		}
	}
	if err := s.Renewable(ctx, "device", 2, 4); err != msl.ErrMasterTokenSequenceNumberOutOfSync {
		t.Error(err)
	}
	if err := s.Renewable(ctx, "device", 2, 6); err != nil {
		t.Error(err)
	}
}

// TestFormerServerIsRestored replaces another file with such a file, and compacts it.
func TestFormerServerIsRestored(t *testing.T) {
	former, path := formerFile(t, "server.db"), filepath.Join(t.TempDir(), "state")
	r, err := RestoreServer(former, path, true)
	if err != nil || r.Entities != 6 || r.IDs != 121 {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, _, err := CompactServer(path); err != nil {
		t.Fatal(err)
	}
	compareVerdicts(t, reopened(t, path))
}

// TestFormerClient does the same with the state of a client.
func TestFormerClient(t *testing.T) {
	path := formerFile(t, "client.db")
	want := msl.ClientRecord{
		MasterToken: []byte(`{"tokendata":"AA=="}`), KeyExchange: "ASYMMETRIC_WRAPPED", Keep: []byte{0, 1, 2},
		UserIDTokens: map[string][]byte{"ann": {3}, "björn": {4}}, ServiceTokens: [][]byte{{5}, {6, 7}}, ClockOffset: -12, ClockKnown: true,
	}
	for name, want := range map[string]msl.ClientRecord{"work": want, "home": {}} {
		for next := range int64(2) {
			c, err := OpenClient(path, name)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Load(t.Context()); err != nil || cmp.Diff(want, got) != "" {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
			if id, err := c.NextID(t.Context(), 7); err != nil || id != 4+next {
				t.Errorf("%s: id %d, %v", name, id, err)
			}
			want.ClockOffset = 5 + next
			if err := errors.Join(c.Save(t.Context(), want), c.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
