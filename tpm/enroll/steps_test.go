package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// TestClockSteps sets the clock of a server that was ahead, or is behind, right again: its
// challenges age from then on, and what it gave to a device by the wrong clock is replaced.
func TestClockSteps(t *testing.T) {
	o, f := newOffice(t, accepting(), nil), newForger(t)
	stale := func(what string, answer []byte) {
		t.Helper()
		_, err := o.Handle(context.Background(), answer)
		t.Log(what)
		checkError(t, err, ErrStale)
	}
	day := 24 * time.Hour
	o.now = o.now.Add(day)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	begin := f.begin()
	ahead := proof.Encode(f.prove(begin, f.ask(o, begin)))
	o.now = o.now.Add(-day)
	stale("made while the clock was ahead", ahead)

	late, attested := proof.Encode(f.prove(begin, f.ask(o, begin))), f.attestation(o, nil)
	o.now = o.now.Add(11 * time.Minute)
	stale("a challenge that is too old", late)
	stale("one for an attestation", proof.Encode(&attested))
	if err := f.attest(o, nil); err != nil {
		t.Error(err)
	}

	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	r := o.record(f.id())
	c, err := x509.ParseCertificate(r.Certificates[len(r.Certificates)-1].DER)
	if err != nil || c.NotBefore.After(o.now) {
		t.Errorf("the certificate counts from %v on, and it is %v: %v", c.NotBefore, o.now, err)
	}
	if r.Since.After(o.now) {
		t.Errorf("tokens count from %v on, and it is %v", r.Since, o.now)
	}

	made := proof.Encode(f.prove(begin, f.ask(o, begin)))
	o.now = o.now.Add(-day)
	stale("made before the clock went back", made)
	if err := f.enroll(o); err != nil {
		t.Errorf("with a clock that is behind: %v", err)
	}
}

// TestClockAhead does what decides since when a name counts by a clock far ahead. The advice about
// that makes tokens of the name count again.
func TestClockAhead(t *testing.T) {
	enroll := func(o *office, f, _ *forger) error { return f.enroll(o) }
	reinstate := func(o *office, f, former *forger) error {
		return errors.Join(o.RevokeDevice(o.t.Context(), former.id(), ""), o.RevokeDevice(o.t.Context(), f.id(), ""),
			o.Reinstate(o.t.Context(), f.id(), ""), o.Approve(o.t.Context(), f.id(), "", ""), f.enroll(o))
	}
	ctx := t.Context()
	for what, c := range map[string]struct {
		ahead  func(o *office, f, former *forger) error
		advice []func(o *office, f, former *forger) error
	}{
		"enrolled": {enroll, []func(*office, *forger, *forger) error{enroll, reinstate}},
		"certificate": {func(o *office, f, _ *forger) error {
			return errors.Join(f.enroll(o), o.RevokeCertificate(ctx, o.record(f.id()).Certificates[0].Serial, ""))
		}, []func(*office, *forger, *forger) error{reinstate, func(o *office, f, _ *forger) error {
			return errors.Join(o.RevokeCertificate(ctx, o.record(f.id()).Certificates[0].Serial, ""), f.enroll(o))
		}}},
		"key": {func(o *office, f, _ *forger) error {
			err := errors.Join(f.enroll(o), o.RevokeKey(ctx, f.id(), o.record(f.id()).Keys[0].Name, ""))
			f.newKey()
			return err
		}, []func(*office, *forger, *forger) error{reinstate, func(o *office, f, _ *forger) error {
			return errors.Join(o.RevokeKey(ctx, f.id(), o.record(f.id()).Keys[0].Name, ""), f.enroll(o))
		}}},
		"device": {reinstate, []func(*office, *forger, *forger) error{reinstate}},
		"replaced": {func(o *office, f, former *forger) error {
			return errors.Join(f.enroll(o), o.Approve(ctx, former.id(), "", ""), former.enroll(o), o.Merge(ctx, former.id(), f.id(), ""), f.enroll(o))
		}, []func(*office, *forger, *forger) error{reinstate}},
	} {
		for i, advice := range c.advice {
			o, f, former := newOffice(t, accepting(), nil), newForger(t), newForger(t)
			o.now = o.now.Add(24 * time.Hour)
			if err := c.ahead(o, f, former); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			o.now = o.now.Add(-24 * time.Hour)
			if err := advice(o, f, former); err != nil {
				t.Errorf("%s, %d: %v", what, i, err)
			}
			s, err := o.Standing(ctx, o.record(f.id()).Name)
			if err != nil || s.Since.After(o.now) || s.Compromised.After(o.now) {
				t.Errorf("%s, %d: it is %v, and the name counts since %+v: %v", what, i, o.now, s, err)
			}
		}
	}
}

// TestRenewalByAClockBehind renews a device while the clock of the server is behind: what another
// device got in its name, before the name was its own, does not count again.
func TestRenewalByAClockBehind(t *testing.T) {
	o, f := newOffice(t, accepting(), nil), newForger(t)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	since := o.record(f.id()).Since
	o.now = o.now.Add(-24 * time.Hour)
	for _, change := range []func(){func() {}, f.newKey} {
		old := f.key
		change()
		if err := f.renew(o, old); err != nil {
			t.Fatal(err)
		}
		if r := o.record(f.id()); !r.Since.Equal(since) {
			t.Errorf("tokens count from %v on, want %v", r.Since, since)
		}
	}
}

// TestClockBehind has a device come to a server whose clock is behind: what another device got
// under its name does not count again.
func TestClockBehind(t *testing.T) {
	o, former, f := newOffice(t, Policy{}, nil), newForger(t), newForger(t)
	for _, step := range []struct {
		device *forger
		name   string
	}{{former, "box"}, {former, "other"}, {f, "box"}} {
		if err := o.Approve(t.Context(), step.device.id(), step.name, ""); err != nil {
			t.Fatal(err)
		}
		if err := step.device.enroll(o); err != nil {
			t.Fatal(err)
		}
	}
	since := o.record(f.id()).Since
	o.now = o.now.Add(-24 * time.Hour)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	if r := o.record(f.id()); !r.Since.Equal(since) {
		t.Errorf("tokens count from %v on, not from %v", r.Since, since)
	}
}
