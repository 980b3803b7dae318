package state

import (
	"context"
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Summary counts the contents of a server's state.
type Summary struct {
	Entities        int       `json:"entities"`         // registered
	EntitiesRevoked int       `json:"entities_revoked"` // registered or not
	EntitiesRemoved int       `json:"entities_removed"`
	Users           int       `json:"users"`
	UsersRevoked    int       `json:"users_revoked"`
	UsersRemoved    int       `json:"users_removed"`
	IDs             int       `json:"ids"`       // master tokens that were used with a non-replayable id
	Sequences       int       `json:"sequences"` // master tokens that were renewed
	Latest          time.Time `json:"latest,omitzero"`
	// The remaining fields are for a state in a file; package bolt fills them in.
	Bytes int64 `json:"bytes"` // of the file
	Free  int64 `json:"free"`  // bytes of it that the next records will use
}

// Summary reads and parses every record. Inconsistent records are [ErrDamaged]. Latest
// is when a token was last renewed or used with a non-replayable id.
func (s *Server) Summary() (sum Summary, err error) {
	err = s.view(context.Background(), "read the state", func(tx kv.Reader) error {
		sum = Summary{}
		for _, count := range []func(kv.Reader, *Summary) error{countEntities, countUsers, countTokens} {
			if err := count(tx, &sum); err != nil {
				return err
			}
		}
		return nil
	})
	return sum, err
}

func countEntities(tx kv.Reader, sum *Summary) error {
	return entityRoll.count(tx, &sum.Entities, &sum.EntitiesRevoked, &sum.EntitiesRemoved, func(name string, payload []byte, m mark) error {
		e, err := decodeEntity(name, payload, m)
		if err != nil {
			return err
		}
		if err := e.check(); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return nil
	})
}

func countUsers(tx kv.Reader, sum *Summary) error {
	return userRoll.count(tx, &sum.Users, &sum.UsersRevoked, &sum.UsersRemoved, func(_ string, payload []byte, _ mark) error {
		_, err := decodePassword(payload)
		return err
	})
}

// count counts the records and marks of a roll. A name that has a record does not count
// as removed.
func (r roll) count(tx kv.Reader, records, revoked, removed *int, parse func(string, []byte, mark) error) error {
	tally := func(m mark) {
		if m.revoked {
			*revoked++
		}
		if m.removed {
			*removed++
		}
	}
	return r.each(tx, func(name string, payload []byte, m mark) error {
		if m.removed {
			return fmt.Errorf("%w: %s %q is registered and removed", ErrDamaged, r.what, name)
		}
		*records++
		tally(m)
		return parse(name, payload, m)
	}, func(_ string, m mark) { tally(m) })
}

func countTokens(tx kv.Reader, sum *Summary) error {
	for table, n := range map[string]*int{tableIDs: &sum.IDs, tableSequences: &sum.Sequences} {
		for p, err := range kv.All(tx, table, nil, nil) {
			if err != nil {
				return err
			}
			last, err := touched(tx, p.Key)
			if err != nil {
				return err
			}
			*n++
			sum.Latest = later(sum.Latest, last)
		}
	}
	return nil
}
