package enroll

import (
	"bytes"
	"context"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// Check reads everything and counts the records by state. Entries that do not lead to a
// record, or do not match it, are [ErrDamaged].
func (s Stored) Check() (states map[State]int, err error) {
	err = s.store.View(context.Background(), func(r kv.Reader) error {
		states = map[State]int{}
		fits, err := storedTx{readOnly{r}}.check(states)
		if err == nil && !fits {
			err = proof.Fail(ErrDamaged, "its index does not match the records")
		}
		return err
	})
	return states, err
}

// check counts the records, and reports whether the derived tables match them.
func (t storedTx) check(states map[State]int) (fits bool, err error) {
	leads, standing := map[string]int{}, 0
	fits = true
	err = t.All(func(r Record) error {
		states[r.State]++
		listed, err := t.listed(&r)
		if err != nil {
			return err
		}
		fits = fits && listed
		standing += len(standings(&r))
		for _, l := range leadsTo(&r) {
			leads[l.table]++
			found, err := t.tx.Get(l.table, l.key)
			if err != nil {
				return err
			}
			if found == nil || string(found) != string(l.value) {
				return proof.Fail(ErrDamaged, "%q does not lead to record %s", l.table, r.ID)
			}
		}
		return nil
	})
	for _, table := range []string{tableNames, tableSerials, tablePending} {
		if err == nil {
			err = t.checkCount(table, leads[table])
		}
	}
	if err != nil || !fits {
		return fits, err
	}
	if n, err := count(t.tx, tableSince); err != nil || n != standing {
		return false, err
	}
	return t.indexed(states)
}

// listed reports whether the derived tables contain a record's entries.
func (t storedTx) listed(r *Record) (bool, error) {
	for _, want := range derivedOf(r) {
		found, err := t.tx.Get(want.table, want.key)
		if err != nil || found == nil || !bytes.Equal(found, want.value) {
			return false, err
		}
	}
	return true, nil
}

// checkCount checks that a table has as many entries as follow from the records.
func (t storedTx) checkCount(table string, want int) error {
	n, err := count(t.tx, table)
	if err == nil && n != want {
		err = proof.Fail(ErrDamaged, "%q has %d entries, and the records have %d", table, n, want)
	}
	return err
}
