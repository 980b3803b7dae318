package enroll

import (
	"context"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// Check reads everything and counts the records by their state. What does not lead
// to a record, or does not fit it, is [ErrDamaged].
func (s stored) Check() (states map[State]int, err error) {
	err = s.store.View(context.Background(), func(r kv.Reader) error {
		states = map[State]int{}
		fits, err := storedTx{readOnly{r}}.check(states)
		if err == nil && !fits {
			err = proof.Fail(ErrDamaged, "its index does not fit the records")
		}
		return err
	})
	return states, err
}

// check counts the records, and reports whether the derived tables fit them.
func (t storedTx) check(states map[State]int) (fits bool, err error) {
	leads := map[string]int{}
	fits = true
	err = t.All(func(r Record) error {
		states[r.State]++
		listed, err := t.tx.Get(tableStates, stateLead(&r))
		if err != nil {
			return err
		}
		fits = fits && listed != nil
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
	return t.indexed(states)
}

// checkCount wants as many entries as the records have.
func (t storedTx) checkCount(table string, want int) error {
	n, err := t.count(table)
	if err == nil && n != want {
		err = proof.Fail(ErrDamaged, "%q has %d entries, and the records have %d", table, n, want)
	}
	return err
}
