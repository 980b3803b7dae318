package enroll

import (
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Policy decides which TPMs are accepted. It is applied once a device has proved that
// it has the EK, in this order:
//
//  1. If a person rejected or revoked the record, it is refused, regardless of the
//     rest.
//  2. If a person approved the record, or the EK is in Allowed, it is accepted. A
//     person may approve an EK hash before its device comes.
//  3. A renewal that an enrolled key signed is accepted, since the device was accepted
//     before.
//  4. An EK certificate that leads to a root of Bundle is accepted, any other is
//     refused.
//  5. An EK without certificate, or any EK if Bundle has no roots, waits for a person,
//     or is refused with RefuseUnknown.
//
// A certificate that is malformed or for another EK is always refused, and so are EKs
// of kinds that are not in Kinds.
type Policy struct {
	Bundle        Bundle
	Allowed       map[ID]bool
	RefuseUnknown bool
	// Kinds are the accepted kinds of EKs; empty means all. A TPM may have several
	// EKs, and each counts as a device of its own, so that a TPM whose EK was
	// revoked could come back with another. Name one kind if only certificates
	// decide.
	Kinds []EKKind
	// Monitor accepts devices that steps 4 and 5 would not, and notes that in
	// Record.Accepted: a way to try a policy on a fleet.
	Monitor bool
	// HoldChanged makes an enrolled device wait for a person if it comes with
	// another key for which the enrolled one does not vouch, as after its TPM was
	// cleared or its files were lost.
	HoldChanged bool
}

// A verdict is the decision of a policy: accepted or, if waits is set, not yet.
type verdict struct {
	accepted string
	waits    string
	chain    [][]byte
	ek       EKCertificate
}

// judge applies the policy to a device and its record, which may be new.
func (p *Policy) judge(r *Record, b *proof.Begin, o *proof.Offered, renews bool, now time.Time) (verdict, error) {
	switch r.State {
	case Rejected:
		return verdict{}, proof.Fail(ErrRejected, "EK hash %s", r.ID)
	case Revoked:
		return verdict{}, proof.Fail(ErrRevoked, "EK hash %s", r.ID)
	}
	if err := checkCertificateKey(o, b); err != nil {
		return verdict{}, err
	}
	if kind := o.EK.Kind(); len(p.Kinds) > 0 && !slices.Contains(p.Kinds, kind) {
		return verdict{}, proof.Fail(ErrPolicy, "EKs of kind %s are not accepted here: use another kind", kind)
	}
	v, err := p.accept(r, b, renews, now)
	if err != nil && p.Monitor {
		v, err = verdict{accepted: "monitoring only: " + err.Error()}, nil
	}
	if err != nil {
		return v, err
	}
	if p.holds(r, o, renews) {
		v.accepted, v.waits = "", "it came with other keys than the enrolled ones"
	}
	if v.waits != "" && p.Monitor {
		v.accepted, v.waits = "monitoring only: "+v.waits, ""
	}
	return v, nil
}

func (p *Policy) accept(r *Record, b *proof.Begin, renews bool, now time.Time) (verdict, error) {
	var v verdict
	var err error
	certified := len(b.EKCertificates) > 0 && p.Bundle.Roots != nil
	if len(b.EKCertificates) > 0 { // for the record, whatever it is worth
		v.ek, _ = ParseEKCertificate(b.EKCertificates[0])
	}
	if certified {
		v.ek, v.chain, err = p.Bundle.verify(b.EKCertificates, now)
	}
	switch {
	case r.Approved:
		v.accepted = "approved by a person"
	case p.Allowed[r.ID]:
		v.accepted = "EK is in the list of allowed ones"
	case renews:
		v.accepted = r.Accepted
	case certified && err == nil:
		v.accepted = "EK certificate"
	case certified:
		return v, err
	case p.RefuseUnknown:
		return v, proof.Fail(ErrPolicy, "nothing is known of EK hash %s", r.ID)
	default:
		v.waits = "nothing is known of its EK"
	}
	return v, nil
}

// holds reports whether other keys than the enrolled ones have to wait.
func (p *Policy) holds(r *Record, o *proof.Offered, renews bool) bool {
	enrolled := len(r.current()) > 0 && (r.State == Enrolled || r.State == Pending)
	return p.HoldChanged && enrolled && !renews && !sameLists(r.current(), o.Names())
}
