package bolt

import (
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// A Summary counts what is in a server's file.
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
	Bytes           int64     `json:"bytes"` // of the file
	Free            int64     `json:"free"`  // bytes of it that the next records take; Check fills it in
}

// Summary reads and parses every record. What does not fit together is
// [ErrDamaged]. Latest is when a token was last used with a non-replayable id or
// renewed.
func (s *Server) Summary() (sum Summary, err error) {
	err = s.view("read the state", func(tx *bbolt.Tx) error {
		sum.Bytes = tx.Size()
		for _, count := range []func(*bbolt.Tx, *Summary) error{countEntities, countUsers, countTokens} {
			if err := count(tx, &sum); err != nil {
				return err
			}
		}
		return nil
	})
	return sum, err
}

func countEntities(tx *bbolt.Tx, sum *Summary) error {
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

func countUsers(tx *bbolt.Tx, sum *Summary) error {
	return userRoll.count(tx, &sum.Users, &sum.UsersRevoked, &sum.UsersRemoved, func(_ string, payload []byte, _ mark) error {
		_, err := decodePassword(payload)
		return err
	})
}

// count counts the records and marks of a roll. A name that has a record is not
// removed.
func (r roll) count(tx *bbolt.Tx, records, revoked, removed *int, parse func(string, []byte, mark) error) error {
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

func countTokens(tx *bbolt.Tx, sum *Summary) error {
	for bucket, n := range map[string]*int{bucketIDs: &sum.IDs, bucketSequences: &sum.Sequences} {
		err := tx.Bucket([]byte(bucket)).ForEach(func(k, _ []byte) error {
			*n++
			last, err := touched(tx, k)
			sum.Latest = later(sum.Latest, last)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
