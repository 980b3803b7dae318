package enroll

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A State is the state of an enrollment.
type State string

// The states of a record.
const (
	Pending  State = "pending"  // it proved its TPM and waits for a person
	Approved State = "approved" // by a person; the device has to come (again)
	Enrolled State = "enrolled"
	Refused  State = "refused"  // by the policy; a person may approve it
	Rejected State = "rejected" // by a person
	Revoked  State = "revoked"  // it was enrolled once, or must never be
)

// A Record is what an authority knows about a device.
type Record struct {
	ID       ID        `json:"id"`
	Name     string    `json:"name"` // its identity; unique
	State    State     `json:"state"`
	Approved bool      `json:"approved"`           // by a person
	Accepted string    `json:"accepted,omitempty"` // why it is enrolled, or may be
	Waits    string    `json:"waits,omitempty"`    // why it is pending or refused
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"`
	Newest   int64     `json:"newest"` // time of the newest used challenge, in nanoseconds since 1970

	// Registered is the name under which it was last registered. It differs from Name if
	// a person has changed that since then.
	Registered string `json:"registered,omitempty"`
	// FormerNames are names under which it was registered earlier, and which this
	// authority revoked when it got another one, newest last.
	FormerNames []string `json:"former_names,omitempty"`
	// Leaving is the name that it is about to give up. Barred are the names that the
	// protocol above was found to have revoked before this authority did: no device gets
	// them.
	Leaving string   `json:"leaving,omitempty"`
	Barred  []string `json:"barred,omitempty"`
	// Measured is a digest of the PCRs with which a person approved the device, which are
	// allowed in addition to the policy's.
	Measured string `json:"measured,omitempty"`
	// Attested is the last attestation since the device enrolled, or nil.
	Attested *Attested `json:"attested,omitempty"`
	// Withdrawn says that this authority revoked what is registered under Name, and may
	// therefore undo that when the device enrolls again.
	Withdrawn bool `json:"withdrawn,omitempty"`
	// Since is when the device last enrolled without an earlier key vouching for it. Anything
	// issued to its name before may belong to another device. To enroll again with the same
	// keys changes it only if it is far ahead of the clock.
	Since time.Time `json:"since,omitzero"`

	Manufacturer string `json:"manufacturer,omitempty"` // of the EK certificate, as "id:53544D20"
	Model        string `json:"model,omitempty"`
	Issuer       string `json:"issuer,omitempty"`     // of the EK certificate, as RFC 2253 has it
	IssuerURL    string `json:"issuer_url,omitempty"` // where the issuer's own certificate is, by the EK certificate

	Evidence     *Evidence     `json:"evidence,omitempty"` // of the last enrollment or application
	Keys         []Key         `json:"keys,omitempty"`
	Certificates []Certificate `json:"certificates,omitempty"`
	Replaced     *ID           `json:"replaced,omitempty"` // the record that took over its name
	Log          []Event       `json:"log,omitempty"`      // newest last
}

// Evidence is the complete proof of a device, which [Verifier.Verify] checks again.
type Evidence struct {
	Proof []byte   `json:"proof"`           // the message of the device
	Chain [][]byte `json:"chain,omitempty"` // DER, from the EK certificate to the root that was trusted
	// DeviceChain is the same for the certificate from the device's manufacturer.
	DeviceChain [][]byte  `json:"device_chain,omitempty"`
	Checked     time.Time `json:"checked"`
	// Expired is the latest known time when the chain was valid, if it had expired when
	// it was checked.
	Expired time.Time `json:"expired,omitzero"`
	// DeviceExpired is the same for DeviceChain.
	DeviceExpired time.Time `json:"device_expired,omitzero"`
}

// A Key is an LDevID.
type Key struct {
	Name    HexBytes    `json:"name"`   // TPM Name
	Public  []byte      `json:"public"` // TPMT_PUBLIC
	Current bool        `json:"current"`
	Retired *time.Time  `json:"retired,omitempty"` // when it was replaced by another key
	Revoked *Revocation `json:"revoked,omitempty"`
}

// A Certificate is one issued for a key.
type Certificate struct {
	Serial  string      `json:"serial"` // hexadecimal
	DER     []byte      `json:"der"`
	Name    string      `json:"name"` // of the device
	Key     HexBytes    `json:"key"`  // TPM Name
	Expires time.Time   `json:"expires"`
	Revoked *Revocation `json:"revoked,omitempty"`
}

// A Revocation says when and why something was revoked. Reasons are the numbers of RFC
// 5280 section 5.3.1.
type Revocation struct {
	Time   time.Time `json:"time"`
	Reason int       `json:"reason"`
	Note   string    `json:"note,omitempty"`
}

// An Event is a line in the history of a record.
type Event struct {
	Time time.Time `json:"time"`
	What string    `json:"what"`
}

// An Identity is a device as the protocol above sees it.
type Identity struct {
	ID        ID
	Name      string
	Keys      []IdentityKey
	Former    []IdentityKey // keys that it had or offered earlier
	Since     time.Time     // see [Record]
	Withdrawn bool          // see [Record]
}

// An IdentityKey is a key of an Identity.
type IdentityKey struct {
	Name        HexBytes         // TPM Name
	Public      crypto.PublicKey // *ecdsa.PublicKey or *rsa.PublicKey
	Certificate *x509.Certificate
}

const (
	maxEvents       = 50
	maxFormerNames  = 16
	maxIssued       = 64 // keys or certificates remembered per record
	rememberRetired = 90 * 24 * time.Hour

	clockSkew   = 5 * time.Second  // between servers; a clock further ahead is wrong
	clocksApart = 12 * time.Minute // so far ahead, a clock is wrong for tokens too: see package msl
)

func (r *Record) log(now time.Time, format string, args ...any) {
	r.touch(now)
	r.Log = append(r.Log, Event{Time: now, What: fmt.Sprintf(format, args...)})
	if extra := len(r.Log) - maxEvents; extra > 0 {
		r.Log = slices.Clone(r.Log[extra:])
	}
}

// touch records a change. Server clocks differ slightly: a change by a server whose clock
// is behind must not move a record to a place in a list that was already read.
func (r *Record) touch(now time.Time) {
	if ahead := r.Updated.Sub(now); ahead <= 0 || ahead > clockSkew {
		r.Updated = now
	}
}

func (r *Record) key(name []byte) *Key {
	for i := range r.Keys {
		if bytes.Equal(r.Keys[i].Name, name) {
			return &r.Keys[i]
		}
	}
	return nil
}

// KeyRevoked reports whether the key with a TPM Name is revoked.
func (r *Record) KeyRevoked(name HexBytes) bool {
	k := r.key(name)
	return k != nil && k.Revoked != nil
}

// current returns the Names of the keys in use.
func (r *Record) current() [][]byte {
	var n [][]byte
	for _, k := range r.Keys {
		if k.Current {
			n = append(n, k.Name)
		}
	}
	return n
}

// live returns the newest certificate of a key that is valid beyond until, nil if
// there is none.
func (r *Record) live(key []byte, until time.Time) *Certificate {
	for i := len(r.Certificates) - 1; i >= 0; i-- {
		c := &r.Certificates[i]
		if bytes.Equal(c.Key, key) && c.Revoked == nil && c.Expires.After(until) {
			return c
		}
	}
	return nil
}

// supersede retires the keys that are not in names.
func (r *Record) supersede(names [][]byte, now time.Time) {
	for i := range r.Keys {
		k := &r.Keys[i]
		if !k.Current || slices.ContainsFunc(names, func(n []byte) bool { return bytes.Equal(n, k.Name) }) {
			continue
		}
		k.Current, k.Retired = false, &now
		r.revokeCertificates(k.Name, Revocation{Time: now, Reason: superseded, Note: "it was replaced by another key"})
	}
}

// revokeCertificates revokes the certificates of a key, or all for a nil key.
func (r *Record) revokeCertificates(key []byte, why Revocation) {
	for i := range r.Certificates {
		if c := &r.Certificates[i]; key == nil || bytes.Equal(c.Key, key) {
			c.revoke(why)
		}
	}
}

// revoke revokes a certificate, once. If a person does it again, a time far ahead is corrected:
// nothing that was issued to the name before that time counts ([Standing.Compromised]).
func (c *Certificate) revoke(why Revocation) (changed bool) {
	switch {
	case c.Revoked == nil:
		c.Revoked = &why
	case c.Revoked.Reason == keyCompromise && why.Reason == keyCompromise && c.Revoked.Time.Sub(why.Time) > clocksApart:
		c.Revoked.Time = why.Time
	default:
		return false
	}
	return true
}

// prune removes expired certificates, and keys that were retired long ago. Recently
// retired keys stay, because a device that received no answer to a renewal names them
// again.
func (r *Record) prune(now time.Time) {
	r.Certificates = slices.DeleteFunc(r.Certificates, func(c Certificate) bool { return c.Expires.Before(now) })
	r.Keys = slices.DeleteFunc(r.Keys, func(k Key) bool {
		return !k.Current && k.Revoked == nil && (k.Retired == nil || now.Sub(*k.Retired) > rememberRetired)
	})
}

// room returns an error if a device with the offered keys would have more keys or certificates
// than a record may. It says when enough of those it has are forgotten.
func (r *Record) room(offered [][]byte) error {
	keys, certificates := 0, len(r.Certificates)+len(offered)
	var retired, expired []time.Time
	for _, k := range r.Keys {
		if k.Revoked == nil {
			keys++
		}
		if k.Revoked == nil && k.Retired != nil {
			retired = append(retired, k.Retired.Add(rememberRetired))
		}
	}
	for _, name := range offered {
		if r.key(name) == nil {
			keys++
		}
	}
	if max(keys, certificates) <= maxIssued {
		return nil
	}
	for _, c := range r.Certificates {
		expired = append(expired, c.Expires)
	}
	until := later(whenGone(retired, keys-maxIssued), whenGone(expired, certificates-maxIssued))
	return proof.Fail(ErrBusy, "EK hash %s has %d keys or certificates: try again after %s, and then less often",
		r.ID, maxIssued, until.UTC().Format(time.DateTime))
}

// whenGone returns when so many things have reached their end.
func whenGone(ends []time.Time, many int) (t time.Time) {
	slices.SortFunc(ends, time.Time.Compare)
	if n := min(many, len(ends)); n > 0 {
		t = ends[n-1]
	}
	return t
}

// Identity returns the device with all its keys, even if they are revoked, and the
// newest certificates of those in use.
func (r *Record) Identity() (Identity, error) {
	id := Identity{ID: r.ID, Name: r.Name, Since: r.Since, Withdrawn: withdrawn(r, r.Name)}
	for _, k := range r.Keys {
		p, err := proof.ParsePublic(k.Public)
		if err != nil {
			return id, err
		}
		key := IdentityKey{Name: k.Name, Public: p.Key}
		if !k.Current {
			id.Former = append(id.Former, key)
			continue
		}
		if c := r.live(k.Name, time.Time{}); c != nil {
			if key.Certificate, err = x509.ParseCertificate(c.DER); err != nil {
				return id, proof.Fail(ErrDamaged, "certificate %s: %w", c.Serial, err)
			}
		}
		id.Keys = append(id.Keys, key)
	}
	return id, nil
}

// registered returns the identity that the protocol above knows.
func (r *Record) registered() (Identity, error) {
	if r.Registered == "" {
		return Identity{}, nil
	}
	id, err := r.Identity()
	id.Name, id.Withdrawn = r.Registered, withdrawn(r, r.Registered)
	return id, err
}

// withdrawn reports whether this authority, and nothing before it, revoked a name.
func withdrawn(r *Record, name string) bool { return r.Withdrawn && !slices.Contains(r.Barred, name) }

// rename records that the device is registered under its name, and no longer under
// another.
func (r *Record) rename() {
	if r.Registered != "" && r.Registered != r.Name {
		r.FormerNames = append(slices.Clone(r.FormerNames), r.Registered)
	}
	r.FormerNames = slices.DeleteFunc(r.FormerNames, func(name string) bool { return name == r.Name })
	r.FormerNames = r.FormerNames[max(0, len(r.FormerNames)-maxFormerNames):]
	r.Registered, r.Leaving, r.Withdrawn = r.Name, "", false
}

// known returns the identities that the protocol above may know: the registered one,
// and one that was about to be registered when an enrollment under a new name was
// interrupted.
func (r *Record) known() (all []Identity, err error) {
	id, err := r.Identity()
	if err != nil || len(r.Keys) == 0 {
		return nil, err
	}
	if r.Registered != "" {
		all = append(all, id)
		all[0].Name = r.Registered
	}
	if r.Name != "" && r.Name != r.Registered {
		all = append(all, id)
	}
	return all, nil
}

// renamed revokes the certificates for former names.
func (r *Record) renamed(now time.Time) {
	for i := range r.Certificates {
		if c := &r.Certificates[i]; c.Name != r.Name && c.Revoked == nil {
			c.Revoked = &Revocation{Time: now, Reason: superseded, Note: "it has a different name now"}
		}
	}
}

// defaultName is the name of a device that nobody has named.
func defaultName(id ID) string { return "tpm-" + id.String()[:32] }

// secondName is the name of a device that gave its name, possibly the default one, to
// another.
func secondName(id ID) string { return "tpm-" + id.String()[:60] }

// checkName refuses names that do not fit in a certificate (RFC 5280 appendix A.1:
// ub-common-name) or could be misread.
func checkName(name string) error {
	const most = 64
	if name == "" || len(name) > most {
		return proof.Fail(ErrName, "a name must have 1 to %d characters", most)
	}
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_' || r == ':' || r == '@') {
			return proof.Fail(ErrName, "a name may contain only letters, digits and - . _ : @")
		}
	}
	return nil
}
