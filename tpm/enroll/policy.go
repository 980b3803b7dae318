package enroll

import (
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Policy says which TPMs are welcome. It is asked once a device has proved
// that it has the EK, in this order:
//
//  1. A record that a person rejected or revoked is refused, whatever the rest
//     says.
//  2. A record that a person approved is accepted, and so is an EK in Allowed.
//     A person may approve an EK hash before its device comes.
//  3. A renewal that an enrolled key signed is accepted: the device was judged
//     before.
//  4. An EK certificate that leads to a root of Bundle is accepted. One that
//     does not is refused.
//  5. An EK without certificate, or any EK where Bundle has no roots, waits for
//     a person; it is refused with RefuseUnknown.
//
// A certificate that does not parse, or is for another EK, is always refused, and
// so are EKs of other Kinds.
type Policy struct {
	Bundle        Bundle
	Allowed       map[ID]bool
	RefuseUnknown bool
	// Kinds are the EKs that count; none means all. A TPM may have several, and
	// each makes a device of its own, so that a TPM whose EK was revoked could
	// come back with another one: name one kind if certificates alone decide.
	Kinds []EKKind
	// Monitor accepts what steps 4 and 5 would not, and notes it in the record
	// as Accepted: a way to learn what a policy would do to a fleet.
	Monitor bool
	// HoldChanged lets a device wait for a person if it is enrolled and comes
	// with another key that the enrolled one does not vouch for: after its TPM
	// was cleared, or if its files were lost.
	HoldChanged bool
}

// A verdict is what a policy says: accepted or, with waits, not yet.
type verdict struct {
	accepted string
	waits    string
	chain    [][]byte
	ek       EKCertificate
}

// judge asks the policy. The record is that of the device, new if it has none.
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
