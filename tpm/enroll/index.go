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

// The derived tables, by which lists and counts cost the same however many records there
// are. They follow from the records, and are made anew where they do not fit.
const (
	tableStates = "states" // empty, by state, time of the last change, and ID
	tableCounts = "counts" // number of records, by state
	tableSince  = "since"  // standing, by name and ID
)

func derived() []string { return []string{tableStates, tableCounts, tableSince} }

// States are all states of a record.
func States() []State { return []State{Pending, Approved, Enrolled, Refused, Rejected, Revoked} }

// stateKey returns the beginning of all keys of a state.
func stateKey(s State) []byte { return append([]byte(s), 0) }

// positionSize is the size of a position: a time in microseconds and an ID.
const positionSize = 8 + len(ID{})

// position is the place of a record in a list. Positions are in the order of time: the sign
// bit is turned, so that times before 1970 come first.
func position(updated time.Time, id ID) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(updated.UnixMicro())^1<<63)
	return append(b, id[:]...)
}

func stateLead(r *Record) []byte { return append(stateKey(r.State), position(r.Updated, r.ID)...) }

// derivedOf returns what the derived tables have of a record, but for the counts.
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

// indexed reports whether the derived tables have an entry for each record, of which there
// are so many in each state, and no other. The entries themselves are compared record by
// record, by check.
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

// unlessDamaged drops an error about what can be made anew.
func unlessDamaged(err error) error {
	if errors.Is(err, ErrDamaged) {
		return nil
	}
	return err
}

// indexStep is how many records a step of reindex takes: more than every [kv.Store] accepts
// to change at once, but files do.
const indexStep = 1000

// reindex makes the derived tables anew, in steps that bound the memory for them. If it is
// interrupted, the next opening finds that they do not fit.
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
