package boltkv

import (
	"slices"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A tx is a transaction as seen by one of the functions that share it.
type tx struct {
	tx     *bbolt.Tx
	layout *Layout
	wrote  bool
}

var _ kv.Tx = (*tx)(nil)

// bucket returns the part of the file for a table, or nil for a derived one that it lacks.
func (t *tx) bucket(table string) (*bbolt.Bucket, error) {
	b := t.tx.Bucket([]byte(table))
	if b == nil && !slices.Contains(t.layout.Derived, table) {
		return nil, damage("it lacks the part %q", table)
	}
	return b, nil
}

// Get implements [kv.Reader].
func (t *tx) Get(table string, key []byte) ([]byte, error) {
	b, err := t.bucket(table)
	if err != nil || b == nil {
		return nil, err
	}
	value := b.Get(key)
	if value == nil {
		return nil, nil
	}
	return t.layout.payload(table, key, value)
}

// Prefetch implements [kv.Reader]: reading is cheap.
func (t *tx) Prefetch(string, ...[]byte) error { return nil }

// Range implements [kv.Reader].
func (t *tx) Range(table string, from, to []byte, limit int) (page []kv.Pair, err error) {
	b, err := t.bucket(table)
	if err != nil || b == nil {
		return nil, err
	}
	c := b.Cursor()
	for k, v := c.Seek(from); k != nil && len(page) < limit; k, v = c.Next() {
		if to != nil && string(k) >= string(to) {
			break
		}
		if table == formatTable && string(k) == formatKey {
			continue // has no checksum, and is not the caller's record
		}
		payload, err := t.layout.payload(table, k, v)
		if err != nil {
			return nil, err
		}
		page = append(page, kv.Pair{Key: k, Value: payload})
	}
	return page, nil
}

// Put implements [kv.Tx].
func (t *tx) Put(table string, key, value []byte) error {
	b, err := t.bucket(table)
	if err != nil {
		return err
	}
	t.wrote = true
	return b.Put(key, t.layout.stored(table, key, value))
}

// Delete implements [kv.Tx].
func (t *tx) Delete(table string, key []byte) error {
	b, err := t.bucket(table)
	if err != nil {
		return err
	}
	t.wrote = true
	return b.Delete(key)
}

// plain reports whether the records of a table have no checksums.
func (l *Layout) plain(table string) bool {
	return slices.Contains(l.Plain, table) || slices.Contains(l.Derived, table)
}

// stored returns a copy of a payload in the form stored in the file.
func (l *Layout) stored(table string, key, payload []byte) []byte {
	if l.plain(table) {
		return append([]byte{}, payload...)
	}
	return kv.Frame(table, key, payload)
}

// payload returns the payload that was passed to stored, as a part of value.
func (l *Layout) payload(table string, key, value []byte) ([]byte, error) {
	if l.plain(table) {
		return value, nil
	}
	payload, ok := kv.Unframe(table, key, value)
	if !ok {
		return nil, damage("a record in %q does not match its checksum", table)
	}
	return payload, nil
}
