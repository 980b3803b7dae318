package authkv

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Bulk is a table of large records that is apart: neither copied nor in the sum. A
// table of digests replaces it there, so that a record that was changed, added, removed
// or put back is detected when it is read.
type Bulk struct{ Table, Digests string }

// Over returns a store that keeps and compares the digests. The store below authenticates
// them.
func (b Bulk) Over(store kv.Store) kv.Store {
	over := bulkStore{store, b}
	if shared, ok := store.(kv.Shared); ok {
		return bulkShared{over, shared}
	}
	return over
}

type bulkStore struct {
	kv.Store
	bulk Bulk
}

// View implements [kv.Store].
func (s bulkStore) View(ctx context.Context, fn func(kv.Reader) error) error {
	return s.Store.View(ctx, func(r kv.Reader) error { return fn(bulkReader{r, s.bulk}) })
}

// Update implements [kv.Store].
func (s bulkStore) Update(ctx context.Context, fn func(kv.Tx) error) error {
	return s.Store.Update(ctx, func(tx kv.Tx) error { return fn(bulkTx{bulkReader{tx, s.bulk}, tx}) })
}

// A bulkShared store has no copy of the large records: recalling one is an error.
type bulkShared struct {
	bulkStore
	shared kv.Shared
}

// Recall implements [kv.Shared].
func (s bulkShared) Recall(ctx context.Context, fn func(kv.Reader) error) error {
	return s.shared.Recall(ctx, fn)
}

type bulkReader struct {
	kv.Reader
	bulk Bulk
}

// Get implements [kv.Reader].
func (r bulkReader) Get(table string, key []byte) ([]byte, error) {
	value, err := r.Reader.Get(table, key)
	if err != nil || table != r.bulk.Table {
		return value, err
	}
	digest, err := r.Reader.Get(r.bulk.Digests, key)
	if err == nil && !fits(value, digest) {
		err = r.bulk.forged()
	}
	return value, err
}

// Range implements [kv.Reader].
func (r bulkReader) Range(table string, from, to []byte, limit int) ([]kv.Pair, error) {
	page, err := r.Reader.Range(table, from, to, limit)
	if err != nil || table != r.bulk.Table {
		return page, err
	}
	digests, err := r.Reader.Range(r.bulk.Digests, from, to, limit)
	if err == nil && len(digests) != len(page) {
		err = r.bulk.forged()
	}
	for i, p := range page {
		if err == nil && (string(digests[i].Key) != string(p.Key) || !fits(p.Value, digests[i].Value)) {
			err = r.bulk.forged()
		}
	}
	return page, err
}

// fits reports whether a record matches its digest, or neither exists.
func fits(value, digest []byte) bool {
	if value == nil || digest == nil {
		return value == nil && digest == nil
	}
	sum := sha256.Sum256(value)
	return string(sum[:]) == string(digest)
}

func (b Bulk) forged() error {
	return fmt.Errorf("authkv: %w: a record in %q was changed, added, removed or put back by somebody without the key of these servers", kv.ErrForged, b.Table)
}

// Prefetch implements [kv.Reader].
func (r bulkReader) Prefetch(table string, keys ...[]byte) error {
	err := r.Reader.Prefetch(table, keys...)
	if err == nil && table == r.bulk.Table {
		err = r.Reader.Prefetch(r.bulk.Digests, keys...)
	}
	return err
}

type bulkTx struct {
	bulkReader
	tx kv.Tx
}

// Put implements [kv.Tx].
func (t bulkTx) Put(table string, key, value []byte) error {
	if table == t.bulk.Table {
		if err := t.tx.Put(t.bulk.Digests, key, t.bulk.Digest(value)); err != nil {
			return err
		}
	}
	return t.tx.Put(table, key, value)
}

// Delete implements [kv.Tx].
func (t bulkTx) Delete(table string, key []byte) error {
	if table == t.bulk.Table {
		if err := t.tx.Delete(t.bulk.Digests, key); err != nil {
			return err
		}
	}
	return t.tx.Delete(table, key)
}

// Digest returns a record's entry in the table of digests.
func (Bulk) Digest(value []byte) []byte {
	sum := sha256.Sum256(value)
	return sum[:]
}
