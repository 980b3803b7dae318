package boltkv

import (
	"encoding/binary"
	"hash/crc32"
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

func (t *tx) bucket(table string) (*bbolt.Bucket, error) {
	b := t.tx.Bucket([]byte(table))
	if b == nil {
		return nil, damage("it lacks the part %q", table)
	}
	return b, nil
}

// Get implements [kv.Reader].
func (t *tx) Get(table string, key []byte) ([]byte, error) {
	b, err := t.bucket(table)
	if err != nil {
		return nil, err
	}
	value := b.Get(key)
	if value == nil {
		return nil, nil
	}
	return t.layout.payload(table, key, value)
}

// Range implements [kv.Reader].
func (t *tx) Range(table string, from, to []byte, limit int) (page []kv.Pair, err error) {
	b, err := t.bucket(table)
	if err != nil {
		return nil, err
	}
	c := b.Cursor()
	for k, v := c.Seek(from); k != nil && len(page) < limit; k, v = c.Next() {
		if to != nil && string(k) >= string(to) {
			break
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

// stored returns a copy of a payload in the form stored in the file.
func (l *Layout) stored(table string, key, payload []byte) []byte {
	if slices.Contains(l.Plain, table) {
		return append([]byte{}, payload...)
	}
	return frame(table, key, payload)
}

// payload returns the payload that was passed to stored. It is a part of value.
func (l *Layout) payload(table string, key, value []byte) ([]byte, error) {
	if slices.Contains(l.Plain, table) {
		return value, nil
	}
	return unframe(table, key, value)
}

const sumSize = 4

// sum also covers the place of a record: a record found in another's place is as bad as
// a changed one.
func sum(table string, key, payload []byte) uint32 {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	s := crc32.Update(0, castagnoli, []byte(table))
	s = crc32.Update(s, castagnoli, key)
	return crc32.Update(s, castagnoli, payload)
}

// frame puts a checksum before a payload.
func frame(table string, key, payload []byte) []byte {
	b := make([]byte, sumSize, sumSize+len(payload))
	binary.BigEndian.PutUint32(b, sum(table, key, payload))
	return append(b, payload...)
}

// unframe returns the payload that was passed to frame. It is a part of value.
func unframe(table string, key, value []byte) ([]byte, error) {
	if len(value) < sumSize || binary.BigEndian.Uint32(value) != sum(table, key, value[sumSize:]) {
		return nil, damage("a record in %q does not fit its checksum", table)
	}
	return value[sumSize:], nil
}
