package state

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A family says which further identities a record covers: it is the character between the
// record's identity and the rest of theirs, or 0 for none.
type family byte

const (
	profiles family = '-' // PSK_PROFILE: KEYID-PROFILE
	suffixes family = '.' // NONE_SUFFIXED: ROOT.SUFFIX
)

func familyOfScheme(scheme string) family {
	switch scheme {
	case "PSK_PROFILE":
		return profiles
	case "NONE_SUFFIXED":
		return suffixes
	}
	return 0
}

func familyOfEntity(payload []byte) (family, error) {
	e, err := decodeEntity("", payload, mark{})
	return familyOfScheme(e.Scheme), err
}

// maxSeparators bounds how often "-" and "." occur in the identity of a record that
// covers others, and so the lookups that a stranger's identity costs.
const maxSeparators = 16

// heads calls do with every prefix of an identity that may be the record it belongs to,
// the shortest first, until do returns true.
func heads(identity string, do func(head string, f family) (bool, error)) (bool, error) {
	identity = msl.CanonicalName(identity)
	separators := 0
	for i := 0; i < len(identity) && separators <= maxSeparators; i++ {
		f := family(identity[i])
		if f != profiles && f != suffixes {
			continue
		}
		separators++
		if i == 0 {
			continue
		}
		if found, err := do(identity[:i], f); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// checkFamily rejects an identity that heads would not find.
func checkFamily(identity, scheme string) error {
	if n := strings.Count(identity, "-") + strings.Count(identity, "."); familyOfScheme(scheme) != 0 && n > maxSeparators {
		return fmt.Errorf("state: the identity of an entity of the scheme %s has at most %d of \"-\" and \".\"", scheme, maxSeparators)
	}
	return nil
}

// loadFamily finds the record that an identity belongs to.
func (d *Directory) loadFamily(tx kv.Reader, identity string) (e *parsedEntity, err error) {
	found, err := heads(identity, func(head string, f family) (bool, error) {
		e, err = d.loadEntity(tx, head, nil)
		if errors.Is(err, keystore.ErrNotFound) {
			return false, nil
		}
		return err == nil && familyOfScheme(e.entity.Scheme) == f, err
	})
	if err == nil && !found {
		err = keystore.ErrNotFound
	}
	return e, err
}

// familyRefused reports whether an identity belongs to a record that was revoked or
// removed. An identity that is itself registered does not belong to another record.
func (d *Directory) familyRefused(tx kv.Reader, identity string) (bool, error) {
	if !strings.ContainsAny(identity, "-.") {
		return false, nil
	}
	key, err := d.entities.key(tx, identity)
	if err != nil {
		return false, err
	}
	if own, err := tx.Get(tableEntities, []byte(key)); err != nil || own != nil {
		return false, err
	}
	return heads(identity, func(head string, f family) (bool, error) {
		m, refused, err := d.entities.mark(tx, head)
		return refused && m.family == f, err
	})
}

// familyCounts returns the time from which tokens count, for the record that an
// identity belongs to.
func (d *Directory) familyCounts(tx kv.Reader, identity string) (since time.Time, err error) {
	if !strings.ContainsAny(identity, "-.") {
		return since, nil
	}
	_, err = heads(identity, func(head string, f family) (bool, error) {
		m, _, err := d.entities.mark(tx, head)
		if m.family == f {
			since = later(since, m.counts)
		}
		return false, err
	})
	return since, err
}

// unambiguous rejects a record whose family would share identities with that of
// another: an entity with the keys of "a" could be a profile of "a-b".
func unambiguous(tx kv.Reader, e EntityRecord) error {
	own := familyOfScheme(e.Scheme)
	if own == 0 {
		return nil
	}
	var other string
	found, err := heads(e.Identity, func(head string, f family) (bool, error) {
		other = head
		if f != own {
			return false, nil
		}
		return isFamily(tx, head, own)
	})
	if err != nil {
		return err
	}
	if !found {
		if other, found, err = memberFamily(tx, msl.CanonicalName(e.Identity)+string(own), own); err != nil {
			return err
		}
	}
	if found {
		return fmt.Errorf("entity %q %w with identities in common: choose one that does not begin like the other", other, ErrExists)
	}
	return nil
}

// isFamily reports whether head has a record with that family.
func isFamily(tx kv.Reader, head string, own family) (bool, error) {
	payload, err := tx.Get(tableEntities, []byte(head))
	if err != nil || payload == nil {
		return false, err
	}
	there, err := familyOfEntity(payload)
	return there == own, err
}

// memberFamily finds a record of the family own that begins with prefix.
func memberFamily(tx kv.Reader, prefix string, own family) (string, bool, error) {
	for p, err := range kv.All(tx, tableEntities, []byte(prefix), kv.PrefixEnd([]byte(prefix))) {
		if err != nil {
			return "", false, err
		}
		if there, err := familyOfEntity(p.Value); err != nil || there == own {
			return string(p.Key), err == nil, err
		}
	}
	return "", false, nil
}
