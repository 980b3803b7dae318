package enroll

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An application is a proof that holds, and the record that it may change.
type application struct {
	proof   *proof.Proof
	offered *proof.Offered
	raw     []byte
	record  *Record
	now     time.Time
}

// advance takes a record from its state to the next: pending or enrolled. The
// device is registered before the record says so; until then it has the keys
// alone, so that a revocation finds what was registered when this was cut off.
func (a *Authority) advance(ctx context.Context, n *application) ([]byte, error) {
	r := n.record
	if n.proof.Challenge.Issued <= r.Newest {
		return nil, proof.Fail(ErrStale, "it, or a newer one, was used before")
	}
	v, err := a.judge(n)
	if err != nil {
		return nil, err
	}
	newest := r.Newest
	r.Newest = n.proof.Challenge.Issued
	if v.waits != "" {
		return nil, a.wait(ctx, n, v)
	}
	if a.complete(n) {
		r.log(n.now, "came again with the same keys")
		if err := a.put(ctx, *r); err != nil {
			return nil, err
		}
		return a.welcome(n)
	}
	if err := a.noteOffered(ctx, n, newest); err != nil {
		return nil, err
	}
	if err := a.enroll(n, v); err != nil {
		return nil, err
	}
	if err := a.register(ctx, r); err != nil {
		return nil, err
	}
	if err := a.put(ctx, *r); err != nil {
		return nil, err
	}
	return a.welcome(n)
}

// noteOffered writes down the keys that are about to be registered, and nothing
// else of the application.
func (a *Authority) noteOffered(ctx context.Context, n *application, newest int64) error {
	r := *n.record
	r.Newest, r.Keys = newest, slices.Clone(r.Keys)
	for _, k := range n.offered.Keys {
		if r.key(k.Name) == nil {
			r.Keys = append(r.Keys, Key{Name: k.Name, Public: k.Raw, Retired: &n.now})
		}
	}
	if len(r.Keys) == len(n.record.Keys) {
		return nil
	}
	if r.prune(n.now); len(r.Keys) > maxIssued {
		return proof.Fail(ErrBusy, "EK hash %s offered %d keys of late", r.ID, len(r.Keys))
	}
	if r.State == "" {
		r.State, r.Waits = Pending, "its registration did not come to its end: it has to come again"
	}
	return a.put(ctx, r)
}

// judge decides about keys and device.
func (a *Authority) judge(n *application) (verdict, error) {
	renews := n.proof.Renewal != nil
	v, err := a.c.Policy.judge(n.record, &n.proof.Begin, n.offered, renews, n.now)
	if err != nil {
		return v, err
	}
	for _, k := range n.offered.Keys {
		if old := n.record.key(k.Name); old != nil && old.Revoked != nil {
			return v, proof.Fail(ErrKeyRevoked, "%s", HexBytes(k.Name))
		}
	}
	if !renews {
		return v, nil
	}
	return v, n.checkRenewer()
}

// checkRenewer wants the key that vouches for new ones to be one that counts. A
// renewal whose answer was lost comes again, and then the new keys count.
func (n *application) checkRenewer() error {
	old, err := proof.ParsePublic(n.proof.Renewal.Key)
	if err != nil {
		return err
	}
	k := n.record.key(old.Name)
	again := sameLists(n.record.current(), n.offered.Names())
	if k == nil || k.Revoked != nil || !k.Current && !again {
		return proof.Fail(ErrRenewal, "key %s", HexBytes(old.Name))
	}
	return nil
}

// complete reports whether the device is enrolled with these keys, and has
// certificates that are good for some time: its last answer was lost, or it only
// asks.
func (a *Authority) complete(n *application) bool {
	r := n.record
	if r.State != Enrolled || r.Registered != r.Name || !sameLists(r.current(), n.offered.Names()) {
		return false
	}
	for _, k := range n.offered.Keys {
		if c := r.live(k.Name, n.now); a.c.Certificate != nil && (c == nil || c.Name != r.Name || !fresh(c, n.now)) {
			return false
		}
	}
	return true
}

// fresh reports whether a third of a certificate's life is left.
func fresh(c *Certificate, now time.Time) bool {
	x, err := x509.ParseCertificate(c.DER)
	return err == nil && now.Before(x.NotAfter.Add(-x.NotAfter.Sub(x.NotBefore)/3))
}

func (n *application) keep(v verdict) {
	r := n.record
	r.Evidence = &Evidence{Proof: n.raw, Chain: v.chain, Checked: n.now}
	r.Manufacturer, r.Model = v.ek.Manufacturer, v.ek.Model
}

// wait keeps the evidence for a person. Keys that are enrolled already stay so.
func (a *Authority) wait(ctx context.Context, n *application, v verdict) error {
	r := n.record
	if r.State != Pending {
		r.log(n.now, "waits: %s", v.waits)
	}
	r.State, r.Waits, r.Updated = Pending, v.waits, n.now
	n.keep(v)
	err := a.c.Records.Update(ctx, func(tx Tx) error {
		if old, err := tx.Get(r.ID); err == nil && old.State == Pending {
			return tx.Put(*r)
		}
		if waiting, err := tx.Pending(); err != nil || waiting >= a.c.MaxPending {
			return proof.Fail(ErrBusy, "%d devices wait for approval", waiting)
		}
		return tx.Put(*r)
	})
	if err != nil {
		return err
	}
	return proof.Fail(ErrPending, "an operator has to approve EK hash %s", r.ID)
}

// enroll changes the record, not yet the file of it.
func (a *Authority) enroll(n *application, v verdict) error {
	r := n.record
	same := r.State == Enrolled && sameLists(r.current(), n.offered.Names()) // it needs new certificates
	r.supersede(n.offered.Names(), n.now)
	r.renamed(n.now)
	r.prune(n.now)
	if r.issued()+len(n.offered.Keys) > maxIssued {
		return proof.Fail(ErrBusy, "EK hash %s was given %d keys or certificates of late", r.ID, r.issued())
	}
	for _, k := range n.offered.Keys {
		if old := r.key(k.Name); old != nil {
			old.Current, old.Retired = true, nil
		} else {
			r.Keys = append(r.Keys, Key{Name: k.Name, Public: k.Raw, Current: true})
		}
		if err := a.issueTo(r, k, n.now); err != nil {
			return err
		}
	}
	n.keep(v)
	if !same && n.proof.Renewal == nil || r.Registered != r.Name {
		r.Since = n.now
	}
	r.State, r.Accepted, r.Waits = Enrolled, v.accepted, ""
	r.log(n.now, "enrolled: %s", v.accepted)
	return nil
}

// register makes the device known, and unknown under a name of before.
func (a *Authority) register(ctx context.Context, r *Record) error {
	id, err := r.Identity()
	if err != nil {
		return err
	}
	if a.c.Register != nil {
		if err := a.c.Register(ctx, id); err != nil {
			return fmt.Errorf("enroll: register %s: %w", r.Name, err)
		}
	}
	if r.Registered != r.Name {
		was, err := r.registered()
		if err != nil {
			return err
		}
		if err := a.withdraw(ctx, was); err != nil {
			return err
		}
	}
	r.Registered, r.Withdrawn = r.Name, false
	return nil
}

// welcome tells the device what it has become.
func (a *Authority) welcome(n *application) ([]byte, error) {
	r := proof.Result{Type: proof.TypeResult, Version: proof.Version, State: proof.StateEnrolled, ID: n.record.ID.String(), Name: n.record.Name}
	if a.c.Certificate == nil {
		return proof.Encode(r), nil
	}
	r.CA = a.c.Certificate.Raw
	for _, k := range n.offered.Keys {
		c := n.record.live(k.Name, n.now)
		if c == nil {
			return nil, fmt.Errorf("enroll: no certificate for key %s: %w", HexBytes(k.Name), keystore.ErrNotFound)
		}
		r.Certificates = append(r.Certificates, c.DER)
	}
	return proof.Encode(r), nil
}
