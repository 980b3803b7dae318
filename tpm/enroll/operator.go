package enroll

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// Approve approves a device that is pending or has not come yet. It is enrolled when it
// comes (again); an enrolled device stays enrolled until then. An empty name keeps the
// current one; the note is for the record. A waiting device is approved with the PCRs
// that it proved, whatever the policy allows. A revoked device is [ErrState]: use
// Reinstate first.
func (a *Authority) Approve(ctx context.Context, id ID, name, note string) error {
	if err := (Approval{Name: name}).check(); err != nil {
		return err
	}
	return a.change(ctx, id, func(r *Record, now time.Time) ([]Identity, error) {
		return nil, r.approve(name, note, now)
	})
}

// An Approval has the arguments of Approve for one device.
type Approval struct {
	ID   ID     `json:"id"`
	Name string `json:"name,omitempty"`
	Note string `json:"note,omitempty"`
}

func (p Approval) check() error {
	if p.Name == "" {
		return nil
	}
	return checkName(p.Name)
}

// ApproveAll approves many devices in a few transactions. It returns an error for each,
// nil for those that it approved; a failure with one does not affect the others.
func (a *Authority) ApproveAll(ctx context.Context, list []Approval) []error {
	var errs []error
	for most := a.records.AtOnce(); len(list) > 0; most = min(most+1, a.records.AtOnce()) {
		some := list[:min(most, len(list))]
		done, crowded := a.approveSome(ctx, some)
		if crowded {
			most = len(some)/2 - 1
			continue
		}
		errs, list = append(errs, done...), list[len(some):]
	}
	return errs
}

// errCrowded ends a transaction that lost to concurrent changes several times.
var errCrowded = errors.New("enroll: too many others are changing records")

// approveSome approves devices in one transaction. crowded reports that others changed
// records several times in the meantime: a transaction longer than the gaps between their
// changes would never succeed.
func (a *Authority) approveSome(ctx context.Context, list []Approval) (errs []error, crowded bool) {
	const patience = 2
	a.mu.Lock()
	defer a.mu.Unlock()
	tries := 0
	failed := a.records.Update(ctx, func(tx Tx) error {
		if tries++; tries > patience && len(list) > 1 {
			return errCrowded
		}
		errs = make([]error, len(list))
		for i, p := range list {
			if errs[i] = p.in(tx, a.now()); errs[i] != nil && !errors.Is(errs[i], ErrName) && !errors.Is(errs[i], ErrState) {
				return errs[i]
			}
		}
		return nil
	})
	for i := range errs {
		errs[i] = cmp.Or(errs[i], failed)
	}
	return errs, errors.Is(failed, errCrowded)
}

// in approves a device, which may be new, in a transaction.
func (p Approval) in(tx Tx, now time.Time) error {
	if err := p.check(); err != nil {
		return err
	}
	r, err := tx.Get(p.ID)
	if errors.Is(err, ErrUnknown) {
		r, err = Record{ID: p.ID}, nil
	}
	if err == nil {
		err = r.approve(p.Name, p.Note, now)
	}
	if err != nil {
		return err
	}
	return tx.Put(r)
}

func (r *Record) approve(name, note string, now time.Time) error {
	if r.State == Revoked {
		return proof.Fail(ErrState, "EK hash %s is revoked: reinstate it first", r.ID)
	}
	if r.Name = cmp.Or(name, r.Name); r.Name == "" {
		r.Name = defaultName(r.ID)
	}
	if r.Created.IsZero() {
		r.Created = now
	}
	r.Measured = measuredBy(r)
	if r.State != Enrolled || r.Name != r.Registered {
		r.State = Approved
	}
	r.Approved, r.Waits = true, ""
	r.log(now, "approved as %s%s", r.Name, remark(note))
	return nil
}

// change changes the record of a device, which may be new, and withdraws the identities
// that this ends. It can be repeated after an error.
func (a *Authority) change(ctx context.Context, id ID, edit func(*Record, time.Time) (ended []Identity, err error)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	there, err := a.barred(ctx, a.registry, id)
	if err != nil {
		return err
	}
	var ended []Identity
	err = a.records.Update(ctx, func(tx Tx) error {
		r, err := tx.Get(id)
		if errors.Is(err, ErrUnknown) {
			r, err = Record{ID: id}, nil
		}
		if err != nil {
			return err
		}
		bar(&r, there)
		if ended, err = edit(&r, a.now()); err != nil {
			return err
		}
		return tx.Put(r)
	})
	return a.registry.end(ctx, ended, err)
}

func remark(note string) string {
	if note == "" {
		return ""
	}
	return ": " + proof.Shorten(note)
}

// Reject rejects a device, and revokes its certificates.
func (a *Authority) Reject(ctx context.Context, id ID, note string) error {
	return a.end(ctx, id, Rejected, privilegeWithdrawn, note)
}

// RevokeDevice revokes an EK, known or not, with all certificates of its device. The EK
// is not enrolled again until Reinstate.
//
// A TPM may have several EKs, each with its own record. Revoke them all.
func (a *Authority) RevokeDevice(ctx context.Context, id ID, note string) error {
	return a.end(ctx, id, Revoked, keyCompromise, note)
}

// end closes a record, and withdraws the device before any other can get its name.
func (a *Authority) end(ctx context.Context, id ID, state State, reason int, note string) error {
	return a.change(ctx, id, func(r *Record, now time.Time) (ended []Identity, err error) {
		if ended, err = r.known(); err != nil {
			return nil, err
		}
		if r.Created.IsZero() { // otherwise it may have given up its name
			r.Name, r.Created = defaultName(id), now
		}
		if reason == keyCompromise && r.Since.Sub(now) > clocksApart { // not by the policy
			r.Since = now
		}
		r.State, r.Approved, r.Waits, r.Withdrawn = state, false, "", true
		r.revokeCertificates(nil, Revocation{Time: now, Reason: reason, Note: proof.Shorten(note)})
		r.log(now, "%s%s", state, remark(note))
		return ended, nil
	})
}

// Reinstate lets a rejected or revoked device apply again. Its earlier certificates stay
// revoked, and the policy or a person decides again.
func (a *Authority) Reinstate(ctx context.Context, id ID, note string) error {
	return a.change(ctx, id, func(r *Record, now time.Time) ([]Identity, error) {
		if r.State != Rejected && r.State != Revoked {
			return nil, proof.Fail(ErrState, "EK hash %s is neither rejected nor revoked", id)
		}
		if r.Name == "" {
			r.Name = secondName(id)
		}
		r.State, r.Waits, r.Replaced = Pending, "it was reinstated and must enroll again", nil
		r.supersede(nil, now)
		r.log(now, "reinstated%s", remark(note))
		return nil, nil
	})
}

// Remove deletes the record of a device that was never enrolled, to make room. Records of
// other devices are [ErrState], because revocations must be remembered; an unknown device
// is [ErrUnknown].
func (a *Authority) Remove(ctx context.Context, id ID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.records.Update(ctx, func(tx Tx) error {
		r, err := tx.Get(id)
		if err != nil {
			return err
		}
		if r.State == Revoked || len(r.Keys)+len(r.Certificates) > 0 {
			return proof.Fail(ErrState, "EK hash %s was enrolled or revoked: its record stays", id)
		}
		return tx.Delete(id)
	})
}

// Merge lets a device whose TPM was replaced keep its name: the record of the new EK,
// which must be pending, approved or enrolled, takes over the name of the old one, which
// is revoked. The device gets the name when it enrolls again.
func (a *Authority) Merge(ctx context.Context, old, new ID, note string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	there, err := a.barred(ctx, a.registry, old, new)
	if err != nil {
		return err
	}
	var ended []Identity
	err = a.records.Update(ctx, func(tx Tx) error {
		from, err := tx.Get(old)
		if err != nil {
			return err
		}
		to, err := tx.Get(new)
		if err != nil {
			return err
		}
		bar(&from, there)
		bar(&to, there)
		if ended, err = merge(&from, &to, a.now(), note); err != nil {
			return err
		}
		if err := tx.Put(from); err != nil { // first, so that the name is free
			return err
		}
		return tx.Put(to)
	})
	return a.registry.end(ctx, ended, err)
}

// merge changes both records, and returns the identities that end.
func merge(from, to *Record, now time.Time, note string) (ended []Identity, err error) {
	switch {
	case from.ID == to.ID:
		return nil, proof.Fail(ErrState, "both are EK hash %s", to.ID)
	case to.State == Rejected || to.State == Revoked:
		return nil, proof.Fail(ErrState, "EK hash %s is %s", to.ID, to.State)
	case from.Name == "":
		return nil, proof.Fail(ErrState, "EK hash %s has already given its name to another device", from.ID)
	}
	for _, r := range []*Record{from, to} {
		known, err := r.known()
		if err != nil {
			return nil, err
		}
		ended = append(ended, known...)
		r.revokeCertificates(nil, Revocation{Time: now, Reason: superseded, Note: "merged"})
	}
	from.log(now, "replaced by EK hash %s%s", to.ID, remark(note))
	to.log(now, "replaces %s, EK hash %s%s", from.Name, from.ID, remark(note))
	if slices.Contains(from.Barred, from.Name) {
		to.Barred = append(slices.Clone(to.Barred), from.Name)
	}
	to.Name, to.State, to.Approved, to.Waits, to.Withdrawn = from.Name, Approved, true, "", true
	from.Name, from.State, from.Approved, from.Replaced = "", Revoked, false, &to.ID
	return ended, nil
}
