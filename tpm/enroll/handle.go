package enroll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// The path of a message through an authority, from top to bottom.

// Handle answers one message of a device, of at most [MaxMessage] bytes. There is always
// a response to send. The error is for the authority's log; it is nil if the device got a
// challenge or was enrolled. See [ErrPending] and the errors after it.
func (a *Authority) Handle(ctx context.Context, request []byte) (response []byte, err error) {
	response, _, err = a.Decide(ctx, request)
	return response, err
}

// Decide is Handle, and also returns what was decided about the device. The decision is
// the zero value unless the device proved its EK with this message.
func (a *Authority) Decide(ctx context.Context, request []byte) (response []byte, d Decision, err error) {
	allowed, err := a.limit.allow(ctx)
	if err == nil && !allowed {
		err = proof.Fail(ErrBusy, "more than %g messages per second", a.limit.perSecond)
	}
	if err != nil {
		return proof.ErrorResult("", err), d, err
	}
	answer, d, err := a.handle(ctx, request)
	if err != nil {
		return proof.ErrorResult(d.id(), err), d, err
	}
	return proof.Encode(answer), d, nil
}

// handle returns the challenge or the result to send, and what was decided about a device
// that proved its EK or its AK.
func (a *Authority) handle(ctx context.Context, request []byte) (answer any, d Decision, err error) {
	kind, err := proof.MessageType(request)
	if err != nil {
		return nil, d, err
	}
	switch kind {
	case proof.TypeBegin:
		answer, err = a.begin(ctx, request)
		return answer, d, err
	case proof.TypeProof:
		n, answer, err := a.enroll(ctx, request)
		if n != nil {
			d = n.decision(err)
		}
		return answer, d, err
	case proof.TypeAttestBegin:
		answer, err = attester{a}.challenge(ctx, request)
		return answer, d, err
	case proof.TypeAttestation:
		return attester{a}.take(ctx, request)
	}
	return nil, d, proof.Fail(ErrMalformed, "type %q", proof.Shorten(kind))
}

// begin answers with a challenge, and reveals nothing of what is known about the EK.
func (a *Authority) begin(ctx context.Context, request []byte) (*proof.Challenge, error) {
	if err := proof.CheckPlain(request); err != nil {
		return nil, err
	}
	b, err := proof.Parse[proof.Begin](request, proof.TypeBegin)
	if err != nil {
		return nil, err
	}
	o, err := b.Open()
	if err != nil {
		return nil, err
	}
	r, err := a.Get(ctx, o.EKHash)
	if err != nil && !errors.Is(err, ErrUnknown) {
		return nil, err
	}
	c := &proof.Challenge{EventLog: b.EventLog && a.policy.EventLogs}
	return c, a.challenges.fill(c, &b, &o, a.now(), r.Newest)
}

// enroll answers a proof: afterward the record of the device is pending, refused or
// enrolled. Everything that can be checked without the record is checked first.
func (a *Authority) enroll(ctx context.Context, request []byte) (n *application, answer any, err error) {
	if n, err = a.challenges.verify(request, a.now()); err != nil {
		return nil, nil, err
	}
	defer a.enter(n.offered.EKHash)()
	for err = errMoved; errors.Is(err, errMoved) && ctx.Err() == nil; {
		n.now = a.now() // the wait may have been long
		if n.record, n.was, err = a.find(ctx, n.offered.EKHash, n.now); err != nil {
			return nil, nil, err
		}
		if n.early, err = early(ctx, a, n); err != nil {
			return nil, nil, err
		}
		err = a.decide(ctx, n)
	}
	if err == nil {
		answer, err = n.result(a.ca)
	}
	return n, answer, err
}

// early reports whether the device enrolled by a clock that was far ahead: as long as its tokens
// do not count, it may enroll again as of now. A renewal leaves that time as it is, and so does a
// device whose name another one had: if it is the clock here that is behind, an earlier time would
// let what the other device got count again.
func early(ctx context.Context, a *Authority, n *application) (early bool, err error) {
	if n.proof.Renewal != nil || n.record.Since.Sub(n.now) <= clocksApart {
		return false, nil
	}
	err = a.records.View(ctx, func(tx Tx) error {
		s, err := tx.Standing(n.record.Name)
		early = !s.Shared
		return err
	})
	return early, err
}

// decide decides about a device by its record. If the record has changed in the meantime,
// the error is [errMoved], and nothing is decided.
func (a *Authority) decide(ctx context.Context, n *application) error {
	if err := n.judge(&a.policy); err != nil {
		return a.refuse(ctx, n, err)
	}
	switch {
	case n.verdict.waits != "":
		return a.hold(ctx, n)
	case n.complete(a.ca):
		return a.confirm(ctx, n)
	}
	return a.accept(ctx, n)
}

// verify checks that a proof answers a challenge of this authority, and everything that
// the proof claims.
func (k *challenger) verify(request []byte, now time.Time) (n *application, err error) {
	n = &application{raw: request}
	if n.proof, err = proof.Parse[proof.Proof](request, proof.TypeProof); err != nil {
		return nil, err
	}
	if err := k.check(&n.proof, now); err != nil {
		return nil, err
	}
	n.offered, err = n.proof.Open()
	return n, err
}

// hold keeps the evidence for a person to decide. Enrolled keys stay enrolled.
func (a *Authority) hold(ctx context.Context, n *application) error {
	n.waiting()
	if err := a.putPending(ctx, n.was, n.record); err != nil {
		return err
	}
	return proof.Fail(ErrPending, "an operator must approve EK hash %s: %s", n.record.ID, n.verdict.waits)
}

// refuse keeps the evidence of a device refused by the policy, unless something was
// decided about it before, so that a person sees it and may approve it.
func (a *Authority) refuse(ctx context.Context, n *application, why error) error {
	byPolicy := errors.Is(why, ErrPolicy) || errors.Is(why, ErrEKCertificate)
	if !byPolicy || n.record.State != "" && n.record.State != Refused {
		return why
	}
	n.refused(why)
	if err := a.putRefused(ctx, n.was, n.record); err != nil {
		return fmt.Errorf("%w; and this could not be recorded: %w", why, err)
	}
	return why
}

// confirm records that an enrolled device came again.
func (a *Authority) confirm(ctx context.Context, n *application) error {
	n.spend()
	n.record.log(n.now, "enrolled again with the same keys")
	return a.put(ctx, n.was, n.record)
}

// accept enrolls the device. It is registered before its record says that it is enrolled.
// The record has the keys even before that, so that after a crash in between, a
// revocation finds what was registered.
func (a *Authority) accept(ctx context.Context, n *application) error {
	if err := a.registry.leave(ctx, &n.record); err != nil {
		return err
	}
	if err := a.note(ctx, n); err != nil {
		return err
	}
	contested := n.contested()
	if err := n.enrolled(a.ca); err != nil {
		return err
	}
	if err := a.takeOver(ctx, &n.record); err != nil {
		return err
	}
	if err := a.registry.enter(ctx, &n.record); err != nil {
		return err
	}
	moved := a.put(ctx, n.was, n.record)
	if moved != nil && !errors.Is(moved, errMoved) || moved == nil && !contested {
		return moved
	}
	if err := a.settle(ctx, n.record.ID); err != nil {
		return err
	}
	return moved
}

// takeOver checks whether this authority revoked a name that is new to a device when
// another one, or the device itself, gave it up.
func (l *ledger) takeOver(ctx context.Context, r *Record) error {
	if r.Withdrawn || r.Name == r.Registered {
		return nil
	}
	return l.records.View(ctx, func(tx Tx) (err error) {
		r.Withdrawn, err = tx.Passed(r.Name)
		return err
	})
}

// settle makes the protocol above match a record, after something else was registered
// while another server changed the record.
func (a *Authority) settle(ctx context.Context, id ID) error {
	for {
		r, was, err := a.find(ctx, id, a.now())
		if err != nil {
			return err
		}
		if err := a.registry.restore(ctx, &r); err != nil {
			return err
		}
		if _, now, err := a.find(ctx, id, a.now()); err != nil || now == was {
			return err
		}
	}
}

// note adds to the stored record what is about to be registered: the keys, and since when
// the name is the device's, so that earlier data under the name ends no later.
func (a *Authority) note(ctx context.Context, n *application) (err error) {
	r := n.record
	r.Keys, r.Certificates = slices.Clone(r.Keys), slices.Clone(r.Certificates)
	for _, k := range n.offered.Keys {
		if r.key(k.Name) == nil {
			r.Keys = append(r.Keys, Key{Name: k.Name, Public: k.Raw, Retired: &n.now})
		}
	}
	if len(r.Keys) == len(n.record.Keys) && !n.begins() {
		return nil
	}
	if n.begins() {
		r.Since = n.now
	}
	r.prune(n.now)
	if err := r.room(n.offered.Names()); err != nil {
		return err
	}
	if r.State == "" || r.State == Refused {
		r.State, r.Waits = Pending, "its registration was not completed: it must enroll again"
	}
	if err := a.put(ctx, n.was, r); err != nil {
		return err
	}
	n.was, err = r.version()
	return err
}
