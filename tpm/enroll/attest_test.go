package enroll

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// attestation answers a new challenge with these PCRs, each filled with a byte.
func (f *forger) attestation(o *office, pcrs map[uint]byte) proof.Attestation {
	f.t.Helper()
	id := f.id()
	return f.attestationTo(o, proof.AttestBegin{Type: proof.TypeAttestBegin, Version: proof.Version, ID: id[:]}, pcrs)
}

// attestationTo answers the challenge to a first message.
func (f *forger) attestationTo(o *office, begin proof.AttestBegin, pcrs map[uint]byte) proof.Attestation {
	f.t.Helper()
	answer, err := o.Handle(f.t.Context(), proof.Encode(begin))
	if err != nil {
		f.t.Fatal(err)
	}
	c, err := proof.Parse[proof.AttestChallenge](answer, proof.TypeAttestChallenge)
	if err != nil {
		f.t.Fatal(err)
	}
	a := proof.Attestation{Type: proof.TypeAttestation, Version: proof.Version, ID: begin.ID, Challenge: c, AK: tpm2.Marshal(f.pubs.ak)}
	a.Quote = *f.quotes(a.Digest(), pcrs)
	return a
}

// attest sends an attestation.
func (f *forger) attest(o *office, pcrs map[uint]byte) error {
	f.t.Helper()
	_, err := o.Handle(f.t.Context(), proof.Encode(f.attestation(o, pcrs)))
	return err
}

// TestAttest notes that a device left the policy, and that it came back.
func TestAttest(t *testing.T) {
	f := newForger(t)
	o := newOffice(t, Policy{Allowed: map[ID]bool{f.id(): true}, PCRs: rules(map[uint][]byte{4: {1}})}, nil)
	if err := f.attest(o, map[uint]byte{4: 1}); !errors.Is(err, ErrAttestation) {
		t.Errorf("before it is enrolled: %v", err)
	}
	checkError(t, f.starts(o, map[uint]byte{4: 1}, false), nil)
	before := len(o.record(f.id()).Log)
	for _, step := range []struct {
		pcrs   map[uint]byte
		want   error
		why    string
		events int // in its history, since it enrolled
	}{
		{map[uint]byte{4: 1, 7: 9}, nil, "", 0}, {map[uint]byte{4: 1}, nil, "", 0}, {map[uint]byte{4: 2}, ErrPolicy, "PCR 4 is 0202", 1},
		{map[uint]byte{4: 2}, ErrPolicy, "PCR 4 is 0202", 1}, {map[uint]byte{7: 9}, ErrPolicy, "set client.attest.pcr to [7, 4]", 2}, {map[uint]byte{4: 1}, nil, "", 3},
	} {
		checkError(t, f.attest(o, step.pcrs), step.want)
		r := o.record(f.id())
		if r.State != Enrolled || !strings.Contains(r.Attested.Why, step.why) || (step.why == "") != (r.Attested.Why == "") || len(r.Log)-before != step.events {
			t.Errorf("%v: %s, %+v, %d events", step.pcrs, r.State, r.Attested, len(r.Log)-before)
		}
	}
	checkError(t, f.attest(o, map[uint]byte{4: 2}), ErrPolicy)
	checkError(t, f.starts(o, map[uint]byte{4: 2}, true), ErrPending)
	checkError(t, o.Approve(t.Context(), f.id(), "", "a new kernel"), nil)
	checkError(t, f.starts(o, map[uint]byte{4: 2}, true), nil)
	if r := o.record(f.id()); r.Attested != nil {
		t.Errorf("%+v", r.Attested)
	}
	checkError(t, f.attest(o, map[uint]byte{4: 2}), nil)
	checkError(t, o.RevokeDevice(t.Context(), f.id(), ""), nil)
	checkError(t, f.attest(o, map[uint]byte{4: 2}), ErrRevoked)
}

// TestAttestRevokes ends a device that left the policy, where the policy says so.
func TestAttestRevokes(t *testing.T) {
	ek := newForger(t).ek
	for name, tt := range map[string]struct {
		pcrs    map[uint]byte
		monitor bool
		want    error
		state   State
	}{
		"allowed": {map[uint]byte{4: 1}, false, nil, Enrolled}, "another": {map[uint]byte{4: 2}, false, ErrRevoked, Revoked},
		"not proved": {map[uint]byte{5: 2}, false, ErrPolicy, Enrolled}, "monitored": {map[uint]byte{4: 2}, true, nil, Enrolled},
	} {
		t.Run(name, func(t *testing.T) {
			f := forgerOf(t, ek)
			o := newOffice(t, Policy{Monitor: tt.monitor, RevokeChanged: true, Allowed: map[ID]bool{f.id(): true}, PCRs: rules(map[uint][]byte{4: {1}})}, nil)
			checkError(t, f.starts(o, map[uint]byte{4: 1}, false), nil)
			_, d, err := o.Decide(t.Context(), proof.Encode(f.attestation(o, tt.pcrs)))
			checkError(t, err, tt.want)
			r := o.record(f.id())
			if r.State != tt.state || d.State != tt.state || !d.Attests || (r.Attested.Why == "") != (tt.pcrs[4] == 1) {
				t.Errorf("%s, %+v, %+v", r.State, d, r.Attested)
			}
			for _, c := range r.Certificates {
				if (c.Revoked != nil) != (tt.state == Revoked) {
					t.Error("its certificate")
				}
			}
		})
	}
}

// TestAttestFewer does not let a device get away with a state that it proved by leaving out
// another PCR. A value that a person approved is not such a state.
func TestAttestFewer(t *testing.T) {
	f := newForger(t)
	o := newOffice(t, Policy{RevokeChanged: true, Allowed: map[ID]bool{f.id(): true}, PCRs: rules(map[uint][]byte{4: {1}, 7: {1}})}, nil)
	checkError(t, f.starts(o, map[uint]byte{4: 2, 7: 1}, false), ErrPending)
	checkError(t, o.Approve(t.Context(), f.id(), "", "a new kernel"), nil)
	checkError(t, f.starts(o, map[uint]byte{4: 2, 7: 1}, false), nil)
	for _, step := range []struct {
		pcrs map[uint]byte
		want error
		why  string
	}{
		{map[uint]byte{4: 2, 7: 1}, nil, ""},
		{map[uint]byte{4: 2}, ErrPolicy, "PCR 4 is 0202"},
		{map[uint]byte{4: 1}, ErrPolicy, "it must prove the state in which it was started: set client.attest.pcr to [4, 7]"},
		{map[uint]byte{4: 3}, ErrRevoked, "set client.attest.pcr to [4, 7]"},
	} {
		err := f.attest(o, step.pcrs)
		checkError(t, err, step.want)
		if r := o.record(f.id()); !strings.Contains(r.Attested.Why, step.why) || (step.why == "") != (r.Attested.Why == "") || (r.State == Revoked) != errors.Is(err, ErrRevoked) {
			t.Errorf("%v: %s, %+v", step.pcrs, r.State, r.Attested)
		}
	}
}

// TestAttestAttacks takes no quote that is old, of another device, or changed.
func TestAttestAttacks(t *testing.T) {
	f, g := newForger(t), newForger(t)
	o := newOffice(t, Policy{Monitor: true}, nil)
	checkError(t, f.enroll(o), nil)
	checkError(t, g.enroll(o), nil)
	good := f.attestation(o, map[uint]byte{4: 1})
	for name, tt := range map[string]struct {
		change func(*proof.Attestation)
		want   error
	}{
		"values":         {func(a *proof.Attestation) { a.Quote.PCRs[0].Digest = make([]byte, 32) }, ErrAttestation},
		"nonce":          {func(a *proof.Attestation) { a.Challenge.Nonce = make([]byte, 32) }, ErrNonce},
		"another device": {func(a *proof.Attestation) { id := g.id(); a.ID = id[:] }, ErrNonce},
		"another AK":     {func(a *proof.Attestation) { a.AK = tpm2.Marshal(g.pubs.ak) }, ErrSignature},
		"no quote":       {func(a *proof.Attestation) { a.Quote = proof.Quote{} }, ErrMalformed},
		"a log":          {func(a *proof.Attestation) { a.EventLog = []byte{1} }, ErrMalformed},
		"short ID":       {func(a *proof.Attestation) { a.ID = a.ID[:31] }, ErrMalformed},
	} {
		bad := good
		bad.Quote.PCRs = []proof.PCR{{Index: 4, Digest: bytes.Clone(good.Quote.PCRs[0].Digest)}}
		tt.change(&bad)
		if _, err := o.Handle(t.Context(), proof.Encode(bad)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mine := f.attestation(o, map[uint]byte{4: 1})
	id := g.id()
	mine.ID = id[:] // a challenge for f, quoted by g for itself
	mine.AK = tpm2.Marshal(g.pubs.ak)
	mine.Quote = *g.quotes(mine.Digest(), map[uint]byte{4: 1})
	_, err := o.Handle(t.Context(), proof.Encode(mine))
	checkError(t, err, ErrStale)
	mine.AK, mine.Quote = tpm2.Marshal(f.pubs.ak), *f.quotes(mine.Digest(), map[uint]byte{4: 1})
	_, err = o.Handle(t.Context(), proof.Encode(mine))
	checkError(t, err, ErrStale)
	_, err = o.Handle(t.Context(), proof.Encode(good))
	checkError(t, err, nil)
	_, err = o.Handle(t.Context(), proof.Encode(good)) // twice
	checkError(t, err, ErrStale)
}

// TestAttestUnlogged notes once that a device sends no event log, for whatever reason, and again
// after one that sent it.
func TestAttestUnlogged(t *testing.T) {
	f := newForger(t)
	o := newOffice(t, Policy{Monitor: true, EventLogs: true}, nil)
	checkError(t, f.enroll(o), nil)
	packed, err := proof.PackLog([]byte("log"))
	if err != nil {
		t.Fatal(err)
	}
	id := f.id()
	before := len(o.record(id).Log)
	for i, step := range []struct {
		offers, sends, told bool
		events              int
	}{
		{false, false, true, 1}, {false, false, false, 1}, {true, false, false, 1}, {true, true, false, 1}, {true, false, true, 2}, {false, false, false, 2},
	} {
		begin := proof.AttestBegin{Type: proof.TypeAttestBegin, Version: proof.Version, ID: id[:], EventLog: step.offers}
		a := f.attestationTo(o, begin, map[uint]byte{4: 1})
		if step.sends {
			a.EventLog = packed
		}
		_, d, err := o.Decide(t.Context(), proof.Encode(a))
		r := o.record(id)
		if err != nil || d.Unlogged != step.told || r.Attested.Unlogged.IsZero() != step.sends || len(r.Log)-before != step.events {
			t.Errorf("%d: told is %v, since %v, %d events, %v", i, d.Unlogged, r.Attested.Unlogged, len(r.Log)-before, err)
		}
		o.now = o.now.Add(time.Second)
	}
}
