package state

import (
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A roll is what entities and users have in common: records by name, and marks that
// outlive them.
type roll struct {
	what           string
	records, marks string
	// family returns which names a record covers besides its own.
	family func(payload []byte) (family, error)
}

var (
	entityRoll = roll{what: "entity", records: tableEntities, marks: tableEntityMarks, family: familyOfEntity}
	userRoll   = roll{what: "user", records: tableUsers, marks: tableUserMarks, family: familyOfUser}
)

func familyOfUser([]byte) (family, error) { return 0, nil }

// A mark says that all tokens of a name are refused, or those issued before some time.
// Like tokens, it outlives the record.
type mark struct {
	revoked bool // until the revocation is lifted
	kept    bool // and only an operator lifts it, though somebody else revoked the name before
	removed bool // until it is added again
	family  family
	since   time.Time // when it was revoked or removed
	counts  time.Time // its tokens count from then on; zero means always
}

const (
	markRevoked = 1 << iota
	markRemoved
	markProfiles
	markSuffixes
	markCounts // a third number follows
	markKept
	markEnd
)

func (m mark) refuses() bool { return m.revoked || m.removed }

func (m mark) encode() []byte {
	var bits int64
	if m.revoked {
		bits |= markRevoked
	}
	if m.kept {
		bits |= markKept
	}
	if m.removed {
		bits |= markRemoved
	}
	switch m.family {
	case profiles:
		bits |= markProfiles
	case suffixes:
		bits |= markSuffixes
	}
	if !m.refuses() {
		m.since = time.Time{}
	}
	if m.counts.IsZero() {
		return encodeInts(bits, seconds(m.since))
	}
	return encodeInts(bits|markCounts, seconds(m.since), seconds(m.counts))
}

func decodeMark(b []byte) (m mark, err error) {
	n, err := decodeInts(b, max(2, len(b)/8))
	if err != nil {
		return m, err
	}
	numbers := 2
	if n[0]&markCounts != 0 {
		numbers = 3
	}
	m.revoked, m.kept, m.removed = n[0]&markRevoked != 0, n[0]&markKept != 0, n[0]&markRemoved != 0
	if n[0] >= markEnd {
		return mark{}, ErrNewer
	}
	both := int64(markProfiles | markSuffixes)
	if n[0]&both == both || len(n) != numbers || !m.refuses() && (numbers == 2 || n[1] != 0) || m.kept && !m.revoked {
		return mark{}, fmt.Errorf("%w: a mark is unknown", ErrDamaged)
	}
	m.family = map[int64]family{markProfiles: profiles, markSuffixes: suffixes}[n[0]&both]
	if m.refuses() {
		m.since = time.Unix(n[1], 0)
	}
	if numbers == 3 {
		m.counts = time.Unix(n[2], 0)
	}
	return m, nil
}

func (r roll) mark(tx kv.Reader, name string) (mark, error) {
	payload, err := tx.Get(r.marks, []byte(name))
	if err != nil || payload == nil {
		return mark{}, err
	}
	return decodeMark(payload)
}

func (r roll) setMark(tx kv.Tx, name string, m mark) error {
	if !m.refuses() && m.counts.IsZero() {
		return tx.Delete(r.marks, []byte(name))
	}
	return tx.Put(r.marks, []byte(name), m.encode())
}

// secondAfter returns the first second in which no token was issued before or at t:
// tokens contain only whole seconds.
func secondAfter(t time.Time) time.Time { return time.Unix(t.Unix()+1, 0) }

// restart ends all tokens issued so far. The clock of the server that last did so may
// have been ahead of this one: tokens that counted then no longer do.
func (m *mark) restart(now time.Time) { m.counts = later(secondAfter(now), secondAfter(m.counts)) }

// add stores a record for a name that has none. A name that was marked as removed
// starts afresh: its older tokens do not count.
func (r roll) add(tx kv.Tx, name string, payload []byte) error {
	if old, err := tx.Get(r.records, []byte(name)); err != nil {
		return err
	} else if old != nil {
		return fmt.Errorf("%s %q %w: remove it first", r.what, name, ErrExists)
	}
	return r.replace(tx, name, payload)
}

// replace stores a record for a name, whether or not it has one.
func (r roll) replace(tx kv.Tx, name string, payload []byte) error {
	m, err := r.mark(tx, name)
	if err != nil {
		return err
	}
	if m.revoked {
		return fmt.Errorf("%s %q %w: take that back first if it may come back", r.what, name, ErrRevoked)
	}
	if m.removed {
		m.removed = false
		if m.counts.IsZero() { // removed by an earlier version
			m.counts = secondAfter(m.since)
		}
		if err := r.setMark(tx, name, m); err != nil {
			return err
		}
	}
	return tx.Put(r.records, []byte(name), payload)
}

// begin invalidates all tokens of a name issued before a moment.
func (r roll) begin(tx kv.Tx, name string, at time.Time) error {
	m, err := r.markWithFamily(tx, name)
	if err != nil {
		return err
	}
	m.restart(at)
	return r.setMark(tx, name, m)
}

// drop removes the record of a name and leaves a mark, so that no token issued before a moment
// will count again.
func (r roll) drop(tx kv.Tx, name string, at time.Time) error {
	if old, err := tx.Get(r.records, []byte(name)); err != nil {
		return err
	} else if old == nil {
		return r.unknown(name)
	}
	m, err := r.markWithFamily(tx, name)
	if err != nil {
		return err
	}
	m.removed, m.since = true, time.Now()
	m.restart(at)
	if err := r.setMark(tx, name, m); err != nil {
		return err
	}
	return tx.Delete(r.records, []byte(name))
}

// revoke marks a name, even if it has no record.
func (r roll) revoke(tx kv.Tx, name string) error {
	m, err := r.markWithFamily(tx, name)
	if err != nil || m.revoked {
		return err
	}
	m.revoked, m.since = true, time.Now()
	return r.setMark(tx, name, m)
}

// keepRevoked is revoke by an operator: what somebody else revoked before, only an operator
// lifts from now on.
func (r roll) keepRevoked(tx kv.Tx, name string) error {
	m, err := r.mark(tx, name)
	if err != nil || m.kept {
		return err
	}
	if !m.revoked {
		return r.revoke(tx, name)
	}
	m.kept = true
	return r.setMark(tx, name, m)
}

// markWithFamily returns the mark of a name, with the family of its record if there is
// one: the mark has to contain it once the record is gone.
func (r roll) markWithFamily(tx kv.Reader, name string) (mark, error) {
	m, err := r.mark(tx, name)
	if err != nil {
		return m, err
	}
	payload, err := tx.Get(r.records, []byte(name))
	if err != nil || payload == nil {
		return m, err
	}
	m.family, err = r.family(payload)
	return m, err
}

// unrevoke lifts a revocation. It also ends the wait for a time from which tokens count that
// a clock far ahead has set: who is not revoked gets in.
func (r roll) unrevoke(tx kv.Tx, name string, at time.Time) error {
	m, err := r.mark(tx, name)
	if err != nil {
		return err
	}
	if !m.revoked {
		return fmt.Errorf("%s %q %w", r.what, name, ErrNotRevoked)
	}
	m.revoked, m.kept = false, false
	if m.counts, err = plausible(tx, m.counts, at); err != nil {
		return err
	}
	return r.setMark(tx, name, m)
}

// restore lifts a revocation that is not an operator's.
func (r roll) restore(tx kv.Tx, name string) error {
	m, err := r.mark(tx, name)
	switch {
	case err != nil || !m.revoked:
		return err
	case m.kept:
		return fmt.Errorf("%s %q %w", r.what, name, ErrRevoked)
	}
	m.revoked = false
	return r.setMark(tx, name, m)
}

// forgotten reports whether the mark of a name says only that it was removed, and
// before the given time.
func (r roll) forgotten(tx kv.Reader, name string, before time.Time) (bool, error) {
	m, err := r.mark(tx, name)
	if err != nil || !m.removed || m.revoked {
		return false, err
	}
	return m.since.Before(before) && m.counts.Before(before), nil
}

func (r roll) unknown(name string) error {
	return fmt.Errorf("%s %q is %w", r.what, name, ErrUnknown)
}

// each calls record for every record and then lone for every mark without a record,
// both in the order of names.
func (r roll) each(tx kv.Reader, record func(name string, payload []byte, m mark) error, lone func(name string, m mark)) error {
	for p, err := range kv.All(tx, r.records, nil, nil) {
		if err != nil {
			return err
		}
		m, err := r.mark(tx, string(p.Key))
		if err != nil {
			return err
		}
		if err := record(string(p.Key), p.Value, m); err != nil {
			return err
		}
	}
	return r.eachLone(tx, lone)
}

// eachLone calls lone for every mark without a record.
func (r roll) eachLone(tx kv.Reader, lone func(name string, m mark)) error {
	for p, err := range kv.All(tx, r.marks, nil, nil) {
		if err != nil {
			return err
		}
		if record, err := tx.Get(r.records, p.Key); err != nil {
			return err
		} else if record != nil {
			continue
		}
		m, err := decodeMark(p.Value)
		if err != nil {
			return err
		}
		if m.refuses() {
			lone(string(p.Key), m)
		}
	}
	return nil
}
