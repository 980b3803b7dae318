package state

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

func record(identity, scheme string) EntityRecord {
	e := EntityRecord{Identity: identity, Scheme: scheme}
	if scheme == "PSK" || scheme == "PSK_PROFILE" {
		e = pskEntity(identity)
		e.Scheme = scheme
	}
	return e
}

func addAll(t *testing.T, s *Server, all ...EntityRecord) {
	t.Helper()
	for _, e := range all {
		if err := s.AddEntity(e); err != nil {
			t.Fatal(err)
		}
	}
}

func isRevoked(t *testing.T, s *Server, identity string) bool {
	t.Helper()
	err := s.Revoked(context.Background(), identity, "")
	if err != nil && err != msl.ErrMasterTokenIdentityRevoked {
		t.Fatal(err)
	}
	return err != nil
}

// TestRevokeFamily revokes key sets of PSK_PROFILE and roots of NONE_SUFFIXED:
// tokens name whole identities.
func TestRevokeFamily(t *testing.T) {
	s := newServer(t)
	addAll(t, s, record("cam", "PSK_PROFILE"), record("cam-a", "PSK"), record("web", "NONE_SUFFIXED"),
		record("lone", "PSK"), record("dash", "NONE_SUFFIXED"))
	for _, identity := range []string{"cam-b", "cam-b-c", "cam-a", "web.1", "web.1.2", "lone-1", "lone.1", "dash-1"} {
		if isRevoked(t, s, identity) {
			t.Errorf("%s is revoked before anything was", identity)
		}
	}
	for _, head := range []string{"cam", "web", "lone", "dash"} {
		if err := s.RevokeEntity(head); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, s *Server) {
		t.Helper()
		for identity, want := range map[string]bool{
			"cam": true, "cam-b": true, "cam-b-c": true, "cam-": true, "web.1": true, "web.1.2": true,
			"cam-a": false, // another entity, registered itself
			"cam.b": false, "cameo-b": false, "web-1": false, "lone-1": false, "lone.1": false, "dash-1": false, "-": false,
		} {
			if isRevoked(t, s, identity) != want {
				t.Errorf("%s: %q revoked: %v", when, identity, !want)
			}
		}
	}
	check("revoked", s)
	for _, head := range []string{"cam", "web"} {
		if err := s.RemoveEntity(head); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s)
	check("revoked and removed", s)
	for _, head := range []string{"cam", "web"} {
		if err := s.UnrevokeEntity(head); err != nil {
			t.Fatal(err)
		}
	}
	check("removed", s)
	addAll(t, s, record("cam", "PSK_PROFILE"))
	if isRevoked(t, s, "cam-b") {
		t.Error("still revoked after it came back")
	}
}

// TestFamilyEntity finds a profile as its key set, with the same restrictions.
func TestFamilyEntity(t *testing.T) {
	s := newServer(t)
	cam := record("cam", "PSK_PROFILE")
	cam.KeyExchanges = []string{"SYMMETRIC_WRAPPED"}
	addAll(t, s, cam, record("web", "NONE_SUFFIXED"), record("lone", "PSK"), record("cam-a", "PSK"))
	for identity, want := range map[string]string{
		"cam-b": "cam", "cam-b-c": "cam", "cam-a": "cam-a", "web.1": "web", "lone-1": "", "web-1": "", "cam.b": "",
	} {
		for range 2 { // from the file and from memory
			e, err := s.Entity(t.Context(), identity)
			switch {
			case want == "" && !errors.Is(err, keystore.ErrNotFound):
				t.Errorf("%q: %v, %v", identity, e, err)
			case want != "" && (err != nil || e.Identity != want):
				t.Errorf("%q: %v, %v, want %s", identity, e, err, want)
			}
		}
	}
	e, err := s.Entity(t.Context(), "cam-b")
	if err != nil || len(e.KeyExchanges) != 1 || e.PSK == nil {
		t.Errorf("%+v, %v", e, err)
	}
	if err := s.RevokeEntity("cam"); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Entity(t.Context(), "cam-b"); err != nil || !e.Revoked {
		t.Errorf("after revocation: %+v, %v", e, err)
	}
}

// TestAmbiguousFamily refuses records whose identities could be mistaken for each
// other's.
func TestAmbiguousFamily(t *testing.T) {
	for _, c := range []struct {
		first, second, scheme string
		clash                 bool
	}{
		{"a", "a-b", "PSK_PROFILE", true},
		{"a-b", "a", "PSK_PROFILE", true},
		{"a.b", "a", "NONE_SUFFIXED", true},
		{"a", "a.b.c", "NONE_SUFFIXED", true},
		{"a-b", "a-c", "PSK_PROFILE", false},
		{"a", "ab-c", "PSK_PROFILE", false},
		{"a", "a-b", "NONE_SUFFIXED", false},
		{"a", "a-b", "PSK", false},
	} {
		s := newServer(t)
		addAll(t, s, record(c.first, c.scheme))
		if err := s.AddEntity(record(c.second, c.scheme)); errors.Is(err, ErrExists) != c.clash || !c.clash && err != nil {
			t.Errorf("%s: %q beside %q: %v", c.scheme, c.second, c.first, err)
		}
	}
}

// TestFamilyBound finds a head at the limit, and refuses one beyond it.
func TestFamilyBound(t *testing.T) {
	s := newServer(t)
	head := strings.Repeat("a.", maxSeparators) + "b"
	addAll(t, s, record(head, "PSK_PROFILE"))
	if e, err := s.Entity(t.Context(), head+"-x-y"); err != nil || e.Identity != head {
		t.Errorf("%v, %v", e, err)
	}
	if err := s.AddEntity(record("c."+head, "PSK_PROFILE")); err == nil {
		t.Error("a record is registered that nothing would find")
	}
	addAll(t, s, record("c."+head, "PSK"))
}

func TestSchemeRecords(t *testing.T) {
	s := newServer(t)
	pair, _ := rsaEntity(t, "rsa")
	wrong := pair
	wrong.Identity, wrong.Scheme = "ecc", "ECC"
	noKeys := EntityRecord{Identity: "profile", Scheme: "PSK_PROFILE"}
	for _, e := range []EntityRecord{wrong, noKeys, {Identity: "ecc", Scheme: "ECC", KeyID: "1"}} {
		if err := s.AddEntity(e); err == nil {
			t.Errorf("%s is registered with scheme %s", e.Identity, e.Scheme)
		}
	}
}
