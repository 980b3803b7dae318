package state

import (
	"crypto/fips140"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/fipstest"
	"github.com/msl-hsm/msl-hsm/internal/stretch"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestFIPS runs TestInFIPS in the FIPS modes of Go.
func TestFIPS(t *testing.T) { fipstest.Run(t, "^TestInFIPS$", "") }

// TestInFIPS has a user whose password was hashed outside of FIPS mode log in.
func TestInFIPS(t *testing.T) {
	if !fips140.Enabled() {
		t.Skip("not in FIPS mode")
	}
	s := newServer(t)
	wantErr(t, s.AddUser("ann", []byte("correct horse")), nil)
	if s.costOf(t, "ann").Approved() {
		t.Fatal("the password is hashed for FIPS already")
	}
	if !stretch.Recommended().Approved() {
		t.Errorf("%v is recommended", stretch.Recommended())
	}
	s.PasswordCost(stretch.Cost{Iterations: 1000})
	for _, pass := range []string{"", "short", "another horse"} {
		if _, err := s.Verify(t.Context(), "ann", []byte(pass)); err != msl.ErrEmailPasswordIncorrect {
			t.Errorf("the password %q: %v", pass, err)
		}
	}
	for range 2 {
		if _, err := s.Verify(t.Context(), "ann", []byte("correct horse")); err != nil || !s.costOf(t, "ann").Approved() {
			t.Errorf("%v, cost %v", err, s.costOf(t, "ann"))
		}
	}
	if _, err := s.Verify(t.Context(), "ann", nil); err != msl.ErrEmailPasswordIncorrect {
		t.Errorf("no password: %v", err)
	}
}
