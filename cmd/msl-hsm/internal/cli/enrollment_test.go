package cli

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
	"github.com/msl-hsm/msl-hsm/tpm/makers"
)

// TestEnrollmentPath refuses a path that matches everything, or nothing.
func TestEnrollmentPath(t *testing.T) {
	for path, ok := range map[string]bool{"/enroll": true, "/a/b": true, "": false, "/": false, "enroll": false, "/{x}": false, "/a b": false} {
		if err := (&config.Enrollment{Path: path}).CheckPath(); (err == nil) != ok {
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
	between, joined := filepath.Join(dir, "between.pem"), filepath.Join(dir, "joined.pem")
	block := makerBetween(t)
	if err := errors.Join(os.WriteFile(between, block, 0o600),
		os.WriteFile(joined, append(bytes.TrimSpace(block), block...), 0o600)); err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, makers.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("0a", 32)
	for what, c := range map[string]struct {
		e  config.Enrollment
		ok bool
	}{
		"the default":      {config.Enrollment{Unknown: "hold"}, true},
		"everything":       {config.Enrollment{Unknown: "refuse", Allow: []string{id}, EKKinds: []string{"rsa2048", "p256", "p384"}, Hold: true}, true},
		"nothing":          {config.Enrollment{}, false},
		"another word":     {config.Enrollment{Unknown: "allow"}, false},
		"half an EK hash":  {config.Enrollment{Unknown: "hold", Allow: []string{id[:32]}}, false},
		"an unknown EK":    {config.Enrollment{Unknown: "hold", EKKinds: []string{"rsa1024"}}, false},
		"no file of roots": {config.Enrollment{Unknown: "hold", EKRoots: config.RootList{filepath.Join(dir, "none.pem")}}, false},
		"no root in it":    {config.Enrollment{Unknown: "hold", EKRoots: config.RootList{empty}}, false},
		"makers":           {config.Enrollment{Unknown: "hold", EKRoots: config.RootList{"makers"}, Expired: "accept"}, true},
		"makers and more":  {config.Enrollment{Unknown: "hold", EKRoots: config.RootList{"makers", between}}, true},
		"no root at all":   {config.Enrollment{Unknown: "hold", EKRoots: config.RootList{between}}, false},
		"makers and junk":  {config.Enrollment{Unknown: "hold", EKRoots: config.RootList{"makers", joined}}, false},
		"devices":          {config.Enrollment{Unknown: "hold", Devices: config.RootList{roots}}, true},
		"no such devices":  {config.Enrollment{Unknown: "hold", Devices: config.RootList{filepath.Join(dir, "none.pem")}}, false},
		"devices, no root": {config.Enrollment{Unknown: "hold", Devices: config.RootList{between}}, false},
		"makers and none":  {config.Enrollment{Unknown: "hold", EKRoots: config.RootList{"makers", empty}}, false},
	} {
		p, err := keys.EnrollmentPolicy(&c.e)
		if (err == nil) != c.ok || err != nil && exit.Code(err) != exit.Usage {
			t.Errorf("%s: %v", what, err)
		}
		if err == nil && (len(p.Allowed) != len(c.e.Allow) || len(p.Kinds) != len(c.e.EKKinds) || p.RefuseUnknown != (c.e.Unknown == "refuse") ||
			p.AcceptExpired != (c.e.Expired == "accept") || (p.Bundle.Roots == nil) != (len(c.e.EKRoots) == 0) || (p.Devices.Roots == nil) != (len(c.e.Devices) == 0)) {
			t.Errorf("%s: %+v", what, p)
		}
	}
}

// makerBetween is an intermediate certificate of a maker.
func makerBetween(t *testing.T) []byte {
	t.Helper()
	for block, rest := pem.Decode(makers.PEM()); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c.RawIssuer, c.RawSubject) {
			return pem.EncodeToMemory(block)
		}
	}
	t.Fatal("none")
	return nil
}

// TestEnrollExitCodes checks the exit code of each outcome of an enrollment.
func TestEnrollExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		enroll.ErrPending: exit.Held, enroll.ErrRejected: exit.Refused, enroll.ErrRevoked: exit.Refused, enroll.ErrKeyRevoked: exit.Refused,
		enroll.ErrPolicy: exit.Refused, enroll.ErrEKCertificate: exit.Refused, enroll.ErrRenewal: exit.Refused,
		identity.ErrOtherTPM: exit.Keystore, identity.ErrCleared: exit.Keystore, identity.ErrNotInitialized: exit.Keystore, identity.ErrNotEnrolled: exit.Keystore,
		enroll.ErrBusy: exit.Failure, enroll.ErrInternal: exit.Failure, enroll.ErrDamaged: exit.Failure, enroll.ErrState: exit.Failure,
	} {
		if got := exit.Code(fmt.Errorf("enroll: %w: more", err)); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}

// TestAfterEnrolling tells a device what to do about the answer of an authority.
func TestAfterEnrolling(t *testing.T) {
	for err, want := range map[error]string{
		identity.ErrPending: ": enroll again after that; at the server, run msl-hsm enrollment approve 0123456789abcdef",
		identity.ErrStale:   "challenge is not valid: run the command again; if there are several servers, compare their clocks",
		identity.ErrPolicy:  identity.ErrPolicy.Error(),
	} {
		if got := afterEnrolling(err, "0123456789abcdef0123456789abcdef"); !errors.Is(got, err) || !strings.HasSuffix(got.Error(), want) {
			t.Errorf("%v, want %s", got, want)
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
		if err := serverside.AfterConflict(c.err); err.Error() != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}
