package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// TestEnrollmentPath refuses what would be the path of everything, or none.
func TestEnrollmentPath(t *testing.T) {
	for path, ok := range map[string]bool{"/enroll": true, "/a/b": true, "": false, "/": false, "enroll": false, "/{x}": false, "/a b": false} {
		if err := (&enrollmentConfig{Path: path}).checkPath(); (err == nil) != ok {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// TestEnrollmentPolicy reads the settings of an operator, and refuses what they
// cannot mean.
func TestEnrollmentPolicy(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("0a", 32)
	for what, c := range map[string]struct {
		e  enrollmentConfig
		ok bool
	}{
		"the default":      {enrollmentConfig{Unknown: "hold"}, true},
		"everything":       {enrollmentConfig{Unknown: "refuse", Allow: []string{id}, EKKinds: []string{"rsa2048", "p256", "p384"}, Hold: true}, true},
		"nothing":          {enrollmentConfig{}, false},
		"another word":     {enrollmentConfig{Unknown: "allow"}, false},
		"half an EK hash":  {enrollmentConfig{Unknown: "hold", Allow: []string{id[:32]}}, false},
		"an unknown EK":    {enrollmentConfig{Unknown: "hold", EKKinds: []string{"rsa1024"}}, false},
		"no file of roots": {enrollmentConfig{Unknown: "hold", EKRoots: filepath.Join(dir, "none.pem")}, false},
		"no root in it":    {enrollmentConfig{Unknown: "hold", EKRoots: empty}, false},
	} {
		p, err := enrollmentPolicy(&c.e)
		if (err == nil) != c.ok || err != nil && exitCode(err) != exitUsage {
			t.Errorf("%s: %v", what, err)
		}
		if err == nil && (len(p.Allowed) != len(c.e.Allow) || len(p.Kinds) != len(c.e.EKKinds) || p.RefuseUnknown != (c.e.Unknown == "refuse")) {
			t.Errorf("%s: %+v", what, p)
		}
	}
}

// TestEnrollExitCodes has what becomes of a device that wants to enroll.
func TestEnrollExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		enroll.ErrPending: exitHeld, enroll.ErrRejected: exitRefused, enroll.ErrRevoked: exitRefused, enroll.ErrKeyRevoked: exitRefused,
		enroll.ErrPolicy: exitRefused, enroll.ErrEKCertificate: exitRefused, enroll.ErrRenewal: exitRefused,
		identity.ErrOtherTPM: exitKeystore, identity.ErrCleared: exitKeystore, identity.ErrNotInitialized: exitKeystore, identity.ErrNotEnrolled: exitKeystore,
		enroll.ErrBusy: exitFailure, enroll.ErrInternal: exitFailure, enroll.ErrDamaged: exitFailure, enroll.ErrState: exitFailure,
	} {
		if got := exitCode(fmt.Errorf("enroll: %w: more", err)); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}

// TestAfterConflict tells the operator what to do where a name means something else.
func TestAfterConflict(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("register: %w", &fleet.ConflictError{Identity: "box", Err: fleet.ErrRevoked}),
			"register: entity box was revoked by an operator: run msl-hsm entity unrevoke box if it may enroll"},
		{&fleet.ConflictError{Identity: "a\nb", Err: fleet.ErrRegistered},
			`entity a\u000ab is registered with other keys: give the device another name, or run msl-hsm entity remove a\u000ab`},
		{enroll.ErrPending, enroll.ErrPending.Error()},
	} {
		if err := afterConflict(c.err); err.Error() != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}
