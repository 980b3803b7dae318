package enroll

import (
	"errors"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// Check reads everything and counts the records by their state. What does not lead
// to a record, or does not fit it, is [ErrDamaged].
func (f *File) Check() (map[State]int, error) {
	states := map[State]int{}
	err := guard(func() error { return f.db.View(func(tx *bbolt.Tx) error { return fileTx{tx}.check(states) }) })
	return states, err
}

func (t fileTx) check(states map[State]int) error {
	leads := map[string]int{}
	err := t.All(func(r Record) error {
		states[r.State]++
		entries, err := entriesOf(r)
		for _, e := range entries {
			leads[e.bucket]++
			if found := t.bucket(e.bucket).Get(e.key); e.bucket != bucketRecords && string(found) != string(e.value) {
				return proof.Fail(ErrDamaged, "%q does not lead to record %s", e.bucket, r.ID)
			}
		}
		return err
	})
	for _, name := range []string{bucketNames, bucketSerials, bucketPending} {
		n := 0
		err = errors.Join(err, t.bucket(name).ForEach(func([]byte, []byte) error { n++; return nil }))
		if err == nil && n != leads[name] {
			err = proof.Fail(ErrDamaged, "%q has %d entries, and the records have %d", name, n, leads[name])
		}
	}
	return err
}
