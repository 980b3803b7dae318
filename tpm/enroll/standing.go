package enroll

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Standing says from when on tokens of a device's name can belong to the device.
type Standing struct {
	// Since is that of the [Record]: anything issued to the name before may belong to
	// another device.
	Since time.Time
	// Compromised is when a certificate with the name was last revoked without a
	// replacement (RFC 5280 section 5.3.1, keyCompromise); the zero time if none was.
	Compromised time.Time
	// Shared says that several devices have or had the name.
	Shared bool
}

// standingKey is the key of the standing that a record gives a name: a name may pass to
// another device while the first one is still registered under it.
func standingKey(name string, id ID) []byte { return append(standingPrefix(name), id[:]...) }

func standingPrefix(name string) []byte { return append([]byte(name), 0) }

// standings are the entries of a record: one for its name, one for the name under which
// it is registered, if that differs, and one for each former or barred name, without
// times.
func standings(r *Record) (all []lead) {
	for i, name := range []string{r.Name, r.Registered} {
		if name == "" || i > 0 && name == r.Name {
			continue
		}
		if s := r.standing(name); s != (Standing{}) {
			all = append(all, lead{tableSince, standingKey(name, r.ID), s.encode()})
		}
	}
	for _, name := range slices.Concat(r.FormerNames, r.Barred) {
		if former := (lead{tableSince, standingKey(name, r.ID), Standing{}.encode()}); !slices.ContainsFunc(all, former.isAt) {
			all = append(all, former)
		}
	}
	return all
}

// Passed implements [Tx].
func (t storedTx) Passed(name string) (passed bool, err error) {
	prefix := standingPrefix(name)
	for p, err := range kv.All(t.tx, tableSince, prefix, kv.PrefixEnd(prefix)) {
		if err != nil {
			return false, err
		}
		if len(p.Key) != len(prefix)+len(ID{}) {
			return false, proof.Fail(ErrDamaged, "since when a name counts")
		}
		r, err := t.Get(ID(p.Key[len(prefix):]))
		if err != nil || slices.Contains(r.Barred, name) {
			return false, err
		}
		passed = passed || r.gave(name)
	}
	return passed, nil
}

// gave reports whether this authority revoked a name that a device no longer has.
func (r *Record) gave(name string) bool {
	ended := r.Withdrawn || r.State == Revoked || r.State == Rejected
	return slices.Contains(r.FormerNames, name) || ended && r.Registered == name && r.Name != name
}

func (r *Record) standing(name string) Standing {
	s := Standing{Since: r.Since}
	for _, c := range r.Certificates {
		if c.Name == name && c.Revoked != nil && c.Revoked.Reason == keyCompromise && c.Revoked.Time.After(s.Compromised) {
			s.Compromised = c.Revoked.Time
		}
	}
	return s
}

// encode writes both times in nanoseconds since 1970; 0 means none.
func (s Standing) encode() []byte {
	var b []byte
	for _, t := range []time.Time{s.Since, s.Compromised} {
		n := int64(0)
		if !t.IsZero() {
			n = t.UnixNano()
		}
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return b
}

func decodeStanding(b []byte) (s Standing, err error) {
	if len(b) != 16 {
		return s, proof.Fail(ErrDamaged, "since when a name counts")
	}
	for i, t := range []*time.Time{&s.Since, &s.Compromised} {
		if n := int64(binary.BigEndian.Uint64(b[8*i:])); n != 0 {
			*t = time.Unix(0, n)
		}
	}
	return s, nil
}

// Standing implements [Tx]. With several devices, the latest times count.
func (t storedTx) Standing(name string) (latest Standing, err error) {
	n, prefix := 0, standingPrefix(name)
	for p, err := range kv.All(t.tx, tableSince, prefix, kv.PrefixEnd(prefix)) {
		if err != nil {
			return Standing{}, err
		}
		s, err := decodeStanding(p.Value)
		if err != nil {
			return Standing{}, err
		}
		latest.Shared = n > 0
		n++
		latest.Since = later(latest.Since, s.Since)
		latest.Compromised = later(latest.Compromised, s.Compromised)
	}
	return latest, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
