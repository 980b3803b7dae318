package state

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/stretch"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestFIPS runs TestInFIPS in the FIPS modes of Go, which a process has from its start.
func TestFIPS(t *testing.T) {
	for _, mode := range []string{"on", "only"} {
		t.Run(mode, func(t *testing.T) {
			c := exec.Command(os.Args[0], "-test.run=^TestInFIPS$", "-test.v")
			c.Env = append(os.Environ(), "GODEBUG=fips140="+mode)
			if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestInFIPS") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

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
