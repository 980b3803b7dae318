package enroll

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// The derived tables, which keep the cost of lists and counts independent of the number
// of records. They follow from the records, and are rebuilt if they do not match.
const (
	tableStates = "states" // empty, by state, time of the last change, and ID
	tableCounts = "counts" // number of records, by state
	tableSince  = "since"  // standing, by name and ID
)

func derived() []string { return []string{tableStates, tableCounts, tableSince} }

// States are all states of a record.
func States() []State { return []State{Pending, Approved, Enrolled, Refused, Rejected, Revoked} }

// stateKey returns the prefix of all keys of a state.
func stateKey(s State) []byte { return append([]byte(s), 0) }

// positionSize is the size of a position: a time in microseconds and an ID.
const positionSize = 8 + len(ID{})

// position is the place of a record in a list. Positions are ordered by time: the sign
// bit is inverted, so that times before 1970 come first.
func position(updated time.Time, id ID) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(updated.UnixMicro())^1<<63)
	return append(b, id[:]...)
}

func stateLead(r *Record) []byte { return append(stateKey(r.State), position(r.Updated, r.ID)...) }

// derivedOf returns a record's entries in the derived tables, except for the counts.
func derivedOf(r *Record) []lead {
	return append(standings(r), lead{tableStates, stateLead(r), []byte{}})
}

// enter adds a record to the derived tables.
func (t storedTx) enter(r *Record) error {
	if err := t.exchange(nil, derivedOf(r)); err != nil {
		return err
	}
	return t.addCount(r.State, 1)
}

// Count implements [Tx].
func (t storedTx) Count(s State) (int, error) {
	value, err := t.tx.Get(tableCounts, stateKey(s))
	if err != nil || value == nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, proof.Fail(ErrDamaged, "the number of records that are %s", s)
	}
	return int(binary.BigEndian.Uint64(value)), nil
}

func (t storedTx) addCount(s State, n int) error {
	was, err := t.Count(s)
	if err != nil {
		return err
	}
	return t.tx.Put(tableCounts, stateKey(s), binary.BigEndian.AppendUint64(nil, uint64(was+n)))
}

// indexed reports whether the derived tables have exactly as many entries as follow from
// the numbers of records in each state. check compares the entries themselves, record by
// record.
func (t storedTx) indexed(states map[State]int) (bool, error) {
	all := 0
	for s, want := range states {
		all += want
		if n, err := t.Count(s); err != nil || n != want {
			return false, unlessDamaged(err)
		}
	}
	for p, err := range kv.All(t.tx, tableCounts, nil, nil) {
		if err != nil {
			return false, err
		}
		s := State(bytes.TrimSuffix(p.Key, []byte{0}))
		if n, err := t.Count(s); err != nil || n != states[s] {
			return false, unlessDamaged(err)
		}
	}
	entries, err := count(t.tx, tableStates)
	return entries == all, err
}

// unlessDamaged drops an error about damage that can be repaired by rebuilding.
func unlessDamaged(err error) error {
	if errors.Is(err, ErrDamaged) {
		return nil
	}
	return err
}

// indexStep is how many records a step of reindex takes: more than every [kv.Store]
// accepts in one change, but files do.
const indexStep = 1000

// reindex rebuilds the derived tables, in steps that bound the memory for them. If it is
// interrupted, the next opening finds that they do not match.
func (s Stored) reindex() error {
	for _, table := range derived() {
		if err := s.steps(table, func(t storedTx, p kv.Pair) error { return t.tx.Delete(table, p.Key) }); err != nil {
			return fmt.Errorf("enroll: index: %w", err)
		}
	}
	err := s.steps(tableRecords, func(t storedTx, p kv.Pair) error {
		r, err := unframe(ID(p.Key), p.Value)
		if err != nil {
			return err
		}
		return t.enter(&r)
	})
	if err != nil {
		return fmt.Errorf("enroll: index: %w", err)
	}
	return nil
}

// steps calls fn for all pairs of a table, some in each transaction.
func (s Stored) steps(table string, fn func(storedTx, kv.Pair) error) error {
	var from, next []byte
	for {
		n := 0
		err := s.store.Update(context.Background(), func(tx kv.Tx) error {
			page, err := tx.Range(table, from, nil, indexStep)
			n = len(page)
			for _, p := range page {
				next = kv.After(p.Key)
				err = errors.Join(err, fn(storedTx{tx}, p))
			}
			return err
		})
		if err != nil || n < indexStep {
			return err
		}
		from = next
	}
}
