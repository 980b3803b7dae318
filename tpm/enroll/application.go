package enroll

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An application is a verified proof and the record of its device, which the methods
// change in memory.
type application struct {
	proof   proof.Proof
	offered proof.Offered
	raw     []byte // the proof as received
	record  Record
	was     version // of the stored record
	verdict verdict
	now     time.Time
	early   bool // see the function early
}

// judge decides whether the device and its keys may be enrolled: by the record, which
// knows used challenges and revoked keys, and by the policy.
func (n *application) judge(p *Policy) (err error) {
	if n.proof.Challenge.Issued <= n.record.Newest {
		return proof.Fail(ErrStale, "it, or a newer one, was used before")
	}
	renews := n.proof.Renewal != nil
	if n.verdict, err = p.judge(&n.record, &n.proof, &n.offered, n.now); err != nil {
		return err
	}
	for _, k := range n.offered.Keys {
		if n.record.KeyRevoked(k.Name) {
			return proof.Fail(ErrKeyRevoked, "%s", HexBytes(k.Name))
		}
	}
	if renews {
		return n.checkRenewer()
	}
	return nil
}

// checkRenewer requires that a current key vouches for the new ones. If the answer to a
// renewal was lost, the device repeats it, and the new keys are already current.
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

// complete reports whether the device is enrolled with these keys and has certificates
// that stay valid for some time, for example because the last answer was lost.
func (n *application) complete(ca *issuer) bool {
	r := &n.record
	if r.State != Enrolled || r.Registered != r.Name || n.early || !sameLists(r.current(), n.offered.Names()) {
		return false
	}
	for _, k := range n.offered.Keys {
		if c := r.live(k.Name, n.now); ca != nil && (c == nil || c.Name != r.Name || !fresh(c, n.now)) {
			return false
		}
	}
	return true
}

// spend records that the challenge was used.
func (n *application) spend() { n.record.Newest = n.proof.Challenge.Issued }

// keep records what the device proved.
func (n *application) keep() {
	r, v := &n.record, n.verdict.claim
	r.Evidence = &Evidence{Proof: n.raw, Chain: v.path.chain, DeviceChain: v.device.chain, Checked: n.now, Expired: v.path.at, DeviceExpired: v.device.at}
	r.Manufacturer, r.Model = v.ek.Manufacturer, v.ek.Model
	r.Issuer, r.IssuerURL = v.ek.issuer()
}

// waiting changes the record to that of a device waiting for a person.
func (n *application) waiting() {
	n.spend()
	r := &n.record
	if r.State != Pending {
		r.log(n.now, "waits: %s", n.verdict.waits)
	}
	r.State, r.Waits = Pending, n.verdict.waits
	r.touch(n.now)
	n.keep()
}

// refused changes the record to that of a device refused by the policy.
func (n *application) refused(why error) {
	n.spend()
	r := &n.record
	text := proof.Shorten(reason(why))
	if r.State != Refused || r.Waits != text {
		r.log(n.now, "refused: %s", text)
	}
	r.State, r.Waits = Refused, text
	r.touch(n.now)
	n.keep()
}

// enrolled changes the record to that of an enrolled device, with certificates for its
// keys.
func (n *application) enrolled(ca *issuer) error {
	begins := n.begins()
	n.spend()
	r := &n.record
	_, changed := changes(r, n.proof.Begin.AK, n.proof.Keys[0].Attest)
	if err := n.acceptKeys(ca); err != nil {
		return err
	}
	n.keep()
	if begins {
		r.Since = n.now
	}
	r.State, r.Accepted, r.Waits, r.Attested = Enrolled, n.verdict.accepted, "", nil
	r.log(n.now, "enrolled: %s", n.verdict.accepted)
	for _, change := range changed {
		r.log(n.now, "%s", change)
	}
	return nil
}

// contested reports whether the record has keys that another server may be about to
// register: when that finds that it was too late, it may register again what the record
// said before.
func (n *application) contested() bool {
	return slices.ContainsFunc(n.record.Keys, func(k Key) bool {
		mine := slices.ContainsFunc(n.offered.Names(), func(name []byte) bool { return bytes.Equal(name, k.Name) })
		return !mine && !slices.ContainsFunc(n.record.Certificates, func(c Certificate) bool { return bytes.Equal(c.Key, k.Name) })
	})
}

// begins reports whether earlier data under the name may belong to another device.
func (n *application) begins() bool {
	r := &n.record
	same := r.State == Enrolled && sameLists(r.current(), n.offered.Names()) // only its certificates are new
	return !same && n.proof.Renewal == nil || r.Registered != r.Name || n.early
}

// acceptKeys makes the offered keys the current ones, and retires the others.
func (n *application) acceptKeys(ca *issuer) error {
	r := &n.record
	r.supersede(n.offered.Names(), n.now)
	r.renamed(n.now)
	r.prune(n.now)
	if err := r.room(n.offered.Names()); err != nil {
		return err
	}
	for _, k := range n.offered.Keys {
		if old := r.key(k.Name); old != nil {
			old.Current, old.Retired = true, nil
		} else {
			r.Keys = append(r.Keys, Key{Name: k.Name, Public: k.Raw, Current: true})
		}
		if ca == nil {
			continue
		}
		if err := ca.issue(r, k, n.now); err != nil {
			return err
		}
	}
	return nil
}

// result makes the message that gives the device its name and its certificates.
func (n *application) result(ca *issuer) (*proof.Result, error) {
	p := &proof.Result{Type: proof.TypeResult, Version: proof.Version, State: proof.StateEnrolled, ID: n.record.ID.String(), Name: n.record.Name}
	if ca == nil {
		return p, nil
	}
	p.CA = ca.certificate.Raw
	for _, k := range n.offered.Keys {
		c := n.record.live(k.Name, n.now)
		if c == nil {
			return nil, fmt.Errorf("enroll: no certificate for key %s: %w", HexBytes(k.Name), keystore.ErrNotFound)
		}
		p.Certificates = append(p.Certificates, c.DER)
	}
	return p, nil
}
