package enroll

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// Records are what an authority knows about devices. A [File] keeps them, and belongs to
// one [Authority] at a time. Package tpm/enroll/etcd keeps them for several.
type Records interface {
	// View calls fn with a state that does not change. fn may run again.
	View(ctx context.Context, fn func(Tx) error) error
	// Recall is View for judging every message of a device: for records shared by several
	// servers it reads the copy in memory, without a request.
	Recall(ctx context.Context, fn func(Tx) error) error
	// Update calls fn. All its changes are durable when Update returns, or none if there
	// was an error. fn may run again: it must set any variables anew each time.
	Update(ctx context.Context, fn func(Tx) error) error
	// AtOnce returns how many records one Update may change, at most.
	AtOnce() int
}

// A Tx reads and changes records.
type Tx interface {
	// Get returns a record, or [ErrUnknown].
	Get(ID) (Record, error)
	// Put adds or replaces a record. A name that another one has is [ErrName].
	Put(Record) error
	// Delete removes a record, if it exists.
	Delete(ID) error
	// BySerial finds the record of a certificate, by its hexadecimal serial
	// number, or [ErrUnknown].
	BySerial(serial string) (ID, error)
	// ByName finds the record with a name, or [ErrUnknown].
	ByName(name string) (ID, error)
	// Standing returns since when a device has a name; the zero value if none has it.
	Standing(name string) (Standing, error)
	// Passed reports whether this authority took the name from a device that had it. The
	// name is then revoked until another device gets it, or the same one again. A name
	// revoked earlier is not passed on.
	Passed(name string) (bool, error)
	// Count counts the records in a state.
	Count(State) (int, error)
	// Page returns the records that match a query, or the first of them.
	Page(Query) (Page, error)
	// Beginning returns up to most records whose ID in lower-case hexadecimal has that
	// prefix, in increasing order of ID.
	Beginning(prefix string, most int) ([]Record, error)
	// All calls fn for every record, in increasing order of ID.
	All(fn func(Record) error) error
}

// The tables of records, and of what leads to them.
const (
	tableRecords = "enrollments" // by ID
	tableNames   = "names"       // ID by name
	tableSerials = "serials"     // ID by serial number
	tablePending = "pending"     // empty, by ID
)

func tables() []string { return []string{tableRecords, tableNames, tableSerials, tablePending} }

// Tables are those of a database of records. All except that of the records,
// [RecordTable], are small: they lead to records, or follow from them.
func Tables() []string { return append(tables(), derived()...) }

// RecordTable has only the records, of some kilobytes each.
const RecordTable = tableRecords

// Stored are [Records] in a database, which has the [Tables].
type Stored struct{ store kv.Store }

// StoredIn returns the records in a database. The caller must close it.
func StoredIn(db kv.Store) Stored { return Stored{db} }

// View implements [Records].
func (s Stored) View(ctx context.Context, fn func(Tx) error) error {
	return s.store.View(ctx, reading(fn))
}

// Recall implements [Records].
func (s Stored) Recall(ctx context.Context, fn func(Tx) error) error {
	if shared, ok := s.store.(kv.Shared); ok {
		return shared.Recall(ctx, reading(fn))
	}
	return s.View(ctx, fn)
}

// AtOnce implements [Records]. Files accept more than every [kv.Store] does.
func (Stored) AtOnce() int { return 100 }

func reading(fn func(Tx) error) func(kv.Reader) error {
	return func(r kv.Reader) error { return fn(storedTx{readOnly{r}}) }
}

// Update implements [Records].
func (s Stored) Update(ctx context.Context, fn func(Tx) error) error {
	return s.store.Update(ctx, func(tx kv.Tx) error { return fn(storedTx{tx}) })
}

// readOnly is for a View.
type readOnly struct{ kv.Reader }

func (readOnly) Put(string, []byte, []byte) error { return errReadOnly() }
func (readOnly) Delete(string, []byte) error      { return errReadOnly() }

func errReadOnly() error { return errors.New("enroll: a View cannot change records") }

type storedTx struct{ tx kv.Tx }

// Get implements [Tx].
func (t storedTx) Get(id ID) (Record, error) {
	value, err := t.tx.Get(tableRecords, id[:])
	if err != nil {
		return Record{}, err
	}
	if value == nil {
		return Record{}, proof.Fail(ErrUnknown, "EK hash %s", id)
	}
	return unframe(id, value)
}

// Put implements [Tx].
func (t storedTx) Put(r Record) error {
	other, err := t.tx.Get(tableNames, []byte(r.Name))
	if err != nil {
		return err
	}
	if r.Name != "" && other != nil && string(other) != string(r.ID[:]) {
		return proof.Fail(ErrName, "%s is the name of EK hash %x", r.Name, other)
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("enroll: record: %w", err)
	}
	if err := t.list(r.ID, &r); err != nil {
		return err
	}
	return t.tx.Put(tableRecords, r.ID[:], frame(r.ID, payload))
}

// list makes the other tables describe a record, or none if it is nil, instead of what is
// stored. It changes only what differs: each change of an entry costs a request in some
// databases.
func (t storedTx) list(id ID, r *Record) error {
	var was, is []lead
	var before, after State
	old, err := t.Get(id)
	if err == nil {
		was, before = append(leadsTo(&old), derivedOf(&old)...), old.State
	}
	if err != nil && !errors.Is(err, ErrUnknown) {
		return err
	}
	if r != nil {
		is, after = append(leadsTo(r), derivedOf(r)...), r.State
	}
	if err := t.move(before, after); err != nil {
		return err
	}
	return t.exchange(was, is)
}

// move counts a record in another state; an empty state means none.
func (t storedTx) move(before, after State) (err error) {
	if before == after {
		return nil
	}
	if before != "" {
		err = t.addCount(before, -1)
	}
	if err == nil && after != "" {
		err = t.addCount(after, 1)
	}
	return err
}

// exchange replaces entries with others.
func (t storedTx) exchange(was, is []lead) error {
	if err := t.prefetch(append(slices.Clone(was), is...)); err != nil {
		return err
	}
	for _, l := range was {
		if slices.ContainsFunc(is, l.isAt) {
			continue
		}
		if err := t.tx.Delete(l.table, l.key); err != nil {
			return err
		}
	}
	for _, l := range is {
		if slices.ContainsFunc(was, func(old lead) bool { return l.isAt(old) && bytes.Equal(l.value, old.value) }) {
			continue
		}
		if err := t.tx.Put(l.table, l.key, l.value); err != nil {
			return err
		}
	}
	return nil
}

// prefetch reads entries that are about to be changed: a database that authenticates its
// records reads each first.
func (t storedTx) prefetch(all []lead) error {
	keys := map[string][][]byte{}
	for _, l := range all {
		keys[l.table] = append(keys[l.table], l.key)
	}
	for table, of := range keys {
		if err := t.tx.Prefetch(table, of...); err != nil {
			return err
		}
	}
	return nil
}

// A lead is an entry that leads to a record.
type lead struct {
	table      string
	key, value []byte
}

func leadsTo(r *Record) (all []lead) {
	if r.Name != "" {
		all = append(all, lead{tableNames, []byte(r.Name), r.ID[:]})
	}
	for _, c := range r.Certificates {
		all = append(all, lead{tableSerials, []byte(c.Serial), r.ID[:]})
	}
	if r.State == Pending {
		all = append(all, lead{tablePending, r.ID[:], nil})
	}
	return all
}

// isAt reports whether two entries have the same key.
func (l lead) isAt(other lead) bool { return l.table == other.table && bytes.Equal(l.key, other.key) }

// Delete implements [Tx].
func (t storedTx) Delete(id ID) error {
	if err := t.list(id, nil); err != nil {
		return err
	}
	return t.tx.Delete(tableRecords, id[:])
}

// BySerial implements [Tx].
func (t storedTx) BySerial(serial string) (ID, error) {
	id, found, err := t.lead(tableSerials, serial)
	if err == nil && !found {
		err = proof.Fail(ErrUnknown, "certificate %s", proof.Shorten(serial))
	}
	return id, err
}

// ByName implements [Tx].
func (t storedTx) ByName(name string) (ID, error) {
	id, found, err := t.lead(tableNames, name)
	if err == nil && !found {
		err = proof.Fail(ErrUnknown, "no device has this name")
	}
	return id, err
}

func (t storedTx) lead(table, key string) (id ID, found bool, err error) {
	value, err := t.tx.Get(table, []byte(key))
	if err != nil || len(value) != len(id) {
		return id, false, err
	}
	return ID(value), true, nil
}

func count(tx kv.Reader, table string) (n int, err error) {
	for _, err := range kv.All(tx, table, nil, nil) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// All implements [Tx].
func (t storedTx) All(fn func(Record) error) error {
	for p, err := range kv.All(t.tx, tableRecords, nil, nil) {
		if err != nil {
			return err
		}
		if len(p.Key) != sha256.Size {
			return proof.Fail(ErrDamaged, "a record has a bad key")
		}
		r, err := unframe(ID(p.Key), p.Value)
		if err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// frame prepends a checksum to a record, which also covers its key.
func frame(id ID, payload []byte) []byte {
	sum := sha256.Sum256(append(id[:], payload...))
	return append(sum[:], payload...)
}

func unframe(id ID, value []byte) (r Record, err error) {
	if len(value) < sha256.Size || string(frame(id, value[sha256.Size:])) != string(value) {
		return r, proof.Fail(ErrDamaged, "record %s does not match its checksum", id)
	}
	if err := kv.DecodeJSON(value[sha256.Size:], &r); err != nil {
		return r, fmt.Errorf("enroll: record %s: %w", id, err)
	}
	if r.ID != id {
		return r, proof.Fail(ErrDamaged, "record %s does not decode", id)
	}
	return r, nil
}
