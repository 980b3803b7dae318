package enroll

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An Attested is the last attestation of an enrolled device: a quote that it sent on its
// own, without enrolling again.
type Attested struct {
	Time time.Time  `json:"time"`
	Why  string     `json:"why,omitempty"` // the state is not allowed; empty if it is
	PCRs []PCRValue `json:"pcrs,omitempty"`
	// Unlogged is since when the device has sent no event log, although it is asked for one.
	Unlogged time.Time `json:"unlogged,omitzero"`
	// Clock is when the TPM signed, by its own counters; zero in records of earlier versions.
	Clock Clock `json:"clock,omitzero"`
	// Changes says in words what has changed about the TPM itself, which decides nothing.
	Changes []string `json:"changes,omitempty"`
}

// A PCRValue is a PCR of the SHA-256 bank in readable form.
type PCRValue struct {
	Index  uint     `json:"index"`
	Digest HexBytes `json:"digest"`
}

// Left reports whether a device is enrolled and last attested to a state that was not
// allowed.
func (r *Record) Left() bool {
	return r.State == Enrolled && r.Attested != nil && r.Attested.Why != ""
}

// macAttest is a use of the key of challenges.
const macAttest = "msl-hsm tpm enrolment 1: attest challenge"

// An attester is the part of an authority that receives attestations of enrolled devices.
type attester struct{ *Authority }

// challenge answers the first message, and reveals nothing of what is known about the EK.
func (a attester) challenge(ctx context.Context, request []byte) (*proof.AttestChallenge, error) {
	if err := proof.CheckPlain(request); err != nil {
		return nil, err
	}
	b, err := proof.Parse[proof.AttestBegin](request, proof.TypeAttestBegin)
	if err != nil {
		return nil, err
	}
	if len(b.ID) != len(ID{}) {
		return nil, proof.Fail(ErrMalformed, "an EK hash of %d bytes", len(b.ID))
	}
	r, err := a.Get(ctx, ID(b.ID))
	if err != nil && !errors.Is(err, ErrUnknown) {
		return nil, err
	}
	c := &proof.AttestChallenge{Type: proof.TypeAttestChallenge, Version: proof.Version, EventLog: b.EventLog && a.policy.EventLogs}
	c.Nonce, c.Issued = issueAt(a.now(), r.Newest)
	macs, err := a.challenges.macs()
	if err != nil {
		return nil, err
	}
	c.MAC, err = macs[0].attestTag(b.ID, *c)
	return c, err
}

// attestTag computes the MAC by which a challenge is recognized.
func (k macFunc) attestTag(id []byte, c proof.AttestChallenge) ([]byte, error) {
	c.MAC = nil
	return k.sum(macAttest, id, binary.BigEndian.AppendUint64(nil, uint64(c.Issued)), sum256(proof.Encode(c)))
}

// checkAttest checks that an attestation answers a challenge of this authority in time.
func (k *challenger) checkAttest(m *proof.Attestation, now time.Time) error {
	mine, err := k.made(m.Challenge.MAC, func(mac macFunc) ([]byte, error) { return mac.attestTag(m.ID, m.Challenge) })
	if err != nil {
		return err
	}
	if mine == nil {
		return proof.Fail(ErrStale, "it was not made here for this device")
	}
	return k.inTime(m.Challenge.Issued, m.Challenge.Nonce, now)
}

// take judges the state that an enrolled device proves. A state that is not allowed is
// noted in its record, and revokes the device if the policy says so. Everything that can
// be checked without the record is checked first.
func (a attester) take(ctx context.Context, request []byte) (answer any, d Decision, err error) {
	m, err := proof.Parse[proof.Attestation](request, proof.TypeAttestation)
	if err != nil {
		return nil, d, err
	}
	if err := m.Open(); err != nil {
		return nil, d, err
	}
	if err := a.challenges.checkAttest(&m, a.now()); err != nil {
		return nil, d, err
	}
	r, err := a.note(ctx, &m)
	if r.State == "" {
		return nil, d, err
	}
	if err == nil && r.Attested.Why != "" && !a.policy.Monitor {
		err = a.left(ctx, &r)
	}
	d = Decision{ID: r.ID, Name: r.Name, State: r.State, Why: r.Accepted, Attests: true}
	if r.Attested != nil && r.Newest == m.Challenge.Issued {
		d.Unlogged, d.Changes = r.Attested.Unlogged.Equal(r.Attested.Time), r.Attested.Changes
	}
	if err != nil {
		d.Why = reason(err)
	}
	return &proof.Result{Type: proof.TypeResult, Version: proof.Version, State: proof.StateEnrolled, ID: r.ID.String(), Name: r.Name}, d, err
}

// note records an attestation. The record is the zero value if the device did not prove
// that it is the record's.
func (a attester) note(ctx context.Context, m *proof.Attestation) (r Record, err error) {
	defer a.enter(ID(m.ID))()
	for err = errMoved; errors.Is(err, errMoved) && ctx.Err() == nil; {
		r, err = a.noteNow(ctx, m)
	}
	return r, err
}

// noteNow does it once. If the record has changed in the meantime, the error is
// [errMoved], and nothing is recorded.
func (a attester) noteNow(ctx context.Context, m *proof.Attestation) (Record, error) {
	r, was, err := a.find(ctx, ID(m.ID), a.now())
	if err != nil {
		return Record{}, err
	}
	if r.State == "" {
		return Record{}, proof.Fail(ErrAttestation, "no device has this AK: enroll this device")
	}
	if err := r.attests(m); err != nil {
		return Record{}, err
	}
	switch {
	case r.State == Revoked:
		return r, proof.Fail(ErrRevoked, "EK hash %s", r.ID)
	case r.State == Rejected:
		return r, proof.Fail(ErrRejected, "EK hash %s", r.ID)
	case len(r.current()) == 0:
		return r, proof.Fail(ErrAttestation, "EK hash %s is not enrolled", r.ID)
	}
	r.noteAttested(a.policy.attested(&r, m), a.policy.EventLogs && len(m.EventLog) == 0, m, a.now())
	return r, a.put(ctx, was, r)
}

// attests checks that an attestation is by the AK with which the device enrolled, and is
// newer than earlier ones.
func (r *Record) attests(m *proof.Attestation) error {
	if r.Evidence == nil {
		return proof.Fail(ErrAttestation, "no AK is recorded for EK hash %s", r.ID)
	}
	p, err := proof.Parse[proof.Proof](r.Evidence.Proof, proof.TypeProof)
	if err != nil {
		return err
	}
	if !bytes.Equal(p.Begin.AK, m.AK) {
		return proof.Fail(ErrKey, "the quote is by an AK other than that of EK hash %s", r.ID)
	}
	if m.Challenge.Issued <= r.Newest {
		return proof.Fail(ErrStale, "it, or a newer one, was used before")
	}
	return nil
}

// attested says what is not allowed about the state of a device, or returns "".
func (p *Policy) attested(r *Record, m *proof.Attestation) string {
	if r.Measured != "" && r.Measured == measurement(&m.Quote) {
		return ""
	}
	return p.PCRs.check(&m.Quote, p.explainer(m.EventLog, &m.Quote), byAttesting)
}

// noteAttested changes the record. Only a change of the verdict, and the first time that the
// event log is missing, are part of its history.
func (r *Record) noteAttested(why string, unlogged bool, m *proof.Attestation, now time.Time) {
	var before Attested
	if r.Attested != nil {
		before = *r.Attested
	}
	clock, changed := changes(r, m.AK, m.Quote.Attest)
	r.Newest, r.Attested = m.Challenge.Issued, &Attested{Time: now, Why: why, Clock: clock, Changes: changed}
	for _, v := range m.Quote.PCRs {
		r.Attested.PCRs = append(r.Attested.PCRs, PCRValue{v.Index, slices.Clone(v.Digest)})
	}
	if unlogged {
		r.Attested.Unlogged = before.Unlogged
	}
	if unlogged && before.Unlogged.IsZero() {
		r.Attested.Unlogged = now
		r.log(now, "attests without the event log of its start")
	}
	switch {
	case why != "" && why != before.Why:
		r.log(now, "left the policy: %s", why)
	case why == "" && before.Why != "":
		r.log(now, "is in an allowed state again")
	}
	for _, change := range changed {
		r.log(now, "%s", change)
	}
}

// left returns the error for a device that left the policy. If the policy asks for it,
// the device is revoked first, but only for a value that it proved, not for one that it
// left out, which may be due to a setting.
func (a attester) left(ctx context.Context, r *Record) error {
	why := proof.Fail(ErrPolicy, "EK hash %s: %s", r.ID, r.Attested.Why)
	if !a.policy.RevokeChanged || !a.policy.PCRs.disprove(r) {
		return why
	}
	if err := a.end(ctx, r.ID, Revoked, privilegeWithdrawn, "it left the policy: "+r.Attested.Why); err != nil {
		return errors.Join(why, err)
	}
	r.State = Revoked
	return proof.Fail(ErrRevoked, "EK hash %s: %s", r.ID, r.Attested.Why)
}
