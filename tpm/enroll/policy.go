package enroll

import (
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Policy decides which TPMs are accepted. It is applied after a device has proved that
// it has the EK, in this order:
//
//  1. If a person rejected or revoked the record, it is refused, regardless of the
//     rest.
//  2. If a person approved the record, or the EK is in Allowed, it is accepted. A
//     person may approve an EK hash before its device comes.
//  3. A renewal that an enrolled key signed is accepted, since the device was accepted
//     before.
//  4. An EK certificate that leads to a root of Bundle is accepted. If it or a
//     certificate above it has expired, it waits for a person, unless AcceptExpired is
//     set or the device is enrolled with the same keys.
//  5. A device is accepted if its manufacturer certified an initial attestation key (IAK)
//     in the TPM, and the certificate leads to a root of Devices. An initial device
//     identity (IDevID) is noted for the person who decides: it does not prove in which
//     TPM the keys are.
//  6. Any other EK waits for a person, or is refused with RefuseUnknown.
//
// If there are rules for PCRs, a device that would be accepted must also prove that it
// was started in an allowed state. Otherwise it waits for a person, or is refused with
// RefuseUnknown, even if it is enrolled and renews its keys.
//
// A certificate that cannot be used, for whatever reason, counts as absent, and the
// record says why. EKs of kinds not in Kinds are always refused.
type Policy struct {
	Bundle        Bundle
	Devices       Bundle // manufacturers of devices
	Allowed       map[ID]bool
	RefuseUnknown bool
	// AcceptExpired accepts expired EK certificates: manufacturers issue them for ten
	// years or so, and TPMs live longer.
	AcceptExpired bool
	// Kinds are the accepted kinds of EKs; empty means all. A TPM may have several EKs,
	// and each counts as a separate device, so that a TPM whose EK was revoked could come
	// back with another. Name one kind if only certificates decide.
	Kinds []EKKind
	// PCRs are the states in which devices may have been started.
	PCRs PCRRules
	// EventLogs asks devices that quote PCRs for the event log of their start. References
	// are the events that led to the allowed states: if a PCR has another value, they
	// show which event differs. Neither affects decisions.
	EventLogs  bool
	References []Reference
	// RevokeChanged revokes an enrolled device that attests to a state that PCRs do not
	// allow. Otherwise this is only noted in its record.
	RevokeChanged bool
	// Monitor accepts devices that steps 4 to 6, or the rules for PCRs, would not accept,
	// and notes that in Record.Accepted: a way to try a policy on a fleet.
	Monitor bool
	// HoldChanged makes an enrolled device wait for a person if it comes with a new key
	// for which the enrolled one does not vouch, as after its TPM was cleared or its
	// files were lost.
	HoldChanged bool
}

// A verdict is the decision of a policy: accepted or, if waits is set, not yet.
type verdict struct {
	accepted string
	waits    string
	claim    claim
}

// A claim is what the EK certificate of a device is worth.
type claim struct {
	ek     EKCertificate
	path   path   // empty if no roots are configured
	unused string // why it counts as absent
	device deviceClaim
}

// claim reads the certificate that a device sent, if any.
func (p *Policy) claim(o *proof.Offered, b *proof.Begin, now time.Time) (c claim) {
	if len(b.EKCertificates) == 0 {
		return c
	}
	e, err := ParseEKCertificate(b.EKCertificates[0])
	if err == nil {
		err = e.checkKey(o)
	}
	if err == nil {
		c.ek = e // for the record, whatever it is worth
		if p.Bundle.Roots != nil {
			c.path, err = p.Bundle.verify(e, b.EKCertificates[1:], now)
		}
	}
	if err != nil {
		c.unused = reason(err)
	}
	return c
}

// expired names the certificate that would admit the device if it had not expired.
func (c *claim) expired() string {
	switch {
	case c.path.expired():
		return "EK certificate"
	case c.device.proves && c.device.expired():
		return "certificate of the device's maker"
	}
	return ""
}

// judge applies the policy to a device and its record, which may be new.
func (p *Policy) judge(r *Record, from *proof.Proof, o *proof.Offered, now time.Time) (verdict, error) {
	renews := from.Renewal != nil
	switch r.State {
	case Rejected:
		return verdict{}, proof.Fail(ErrRejected, "EK hash %s", r.ID)
	case Revoked:
		return verdict{}, proof.Fail(ErrRevoked, "EK hash %s", r.ID)
	}
	c := p.claim(o, &from.Begin, now)
	if kind := o.EK.Kind(); len(p.Kinds) > 0 && !slices.Contains(p.Kinds, kind) {
		return verdict{claim: c}, proof.Fail(ErrPolicy, "EKs of kind %s are not accepted here: use another kind", kind)
	}
	c.device = p.claimDevice(from.Device, now)
	v, err := p.accept(r, c, o, renews)
	if err == nil && v.waits == "" {
		err = p.started(r, from, &v)
	}
	if err != nil && p.Monitor {
		v.accepted, err = "monitoring only: "+err.Error(), nil
	}
	if err != nil {
		return v, err
	}
	if p.holds(r, o, renews) {
		v.accepted, v.waits = "", "it came with keys other than the enrolled ones"
	}
	if v.waits != "" && p.Monitor {
		v.accepted, v.waits = "monitoring only: "+v.waits, ""
	}
	return v, nil
}

func (p *Policy) accept(r *Record, c claim, o *proof.Offered, renews bool) (verdict, error) {
	v := verdict{claim: c}
	expired := c.expired()
	switch {
	case r.Approved:
		v.accepted = "approved by a person"
	case p.Allowed[r.ID]:
		v.accepted = "EK is on the list of allowed EKs"
	case renews:
		v.accepted = r.Accepted
	case c.path.certified():
		v.accepted = "EK certificate" + c.disagreement()
	case c.device.proves && c.device.certified():
		v.accepted = "certificate of the device's maker: " + c.device.name + c.disagreement()
	case expired != "" && p.AcceptExpired:
		v.accepted = "expired " + expired + c.disagreement()
	case expired != "" && r.State == Enrolled && sameLists(r.current(), o.Names()):
		v.accepted = r.Accepted
	case expired != "":
		v.waits = "its " + expired + ", or a certificate above it, has expired"
	case p.RefuseUnknown && c.unused != "":
		return v, proof.Fail(ErrEKCertificate, "EK hash %s: %s%s", r.ID, c.unused, c.device.remark())
	case p.RefuseUnknown:
		return v, proof.Fail(ErrPolicy, "EK hash %s is unknown%s", r.ID, c.device.remark())
	case c.unused != "":
		v.waits = "its EK certificate is not accepted: " + c.unused
	default:
		v.waits = "its EK is unknown"
	}
	if v.waits != "" {
		v.waits += c.device.remark() + c.disagreement()
	}
	return v, nil
}

// started judges the state in which an accepted device was started.
func (p *Policy) started(r *Record, from *proof.Proof, v *verdict) error {
	why := p.PCRs.check(from.Quote, p.explainer(from.EventLog, from.Quote), byEnrolling)
	if why == "" || r.Measured != "" && r.Measured == measurement(from.Quote) {
		return nil
	}
	if p.RefuseUnknown {
		return proof.Fail(ErrPolicy, "EK hash %s: %s", r.ID, why)
	}
	v.accepted, v.waits = "", why
	return nil
}

// holds reports whether keys other than the enrolled ones must wait.
func (p *Policy) holds(r *Record, o *proof.Offered, renews bool) bool {
	enrolled := len(r.current()) > 0 && (r.State == Enrolled || r.State == Pending)
	return p.HoldChanged && enrolled && !renews && !sameLists(r.current(), o.Names())
}
