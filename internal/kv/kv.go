// Package kv is the interface between a state and its database: records by key in a few
// tables, transactions, and ranges in the order of keys.
//
// The interface is small so that very different databases can implement it: [Store] has
// one implementation in a file (package boltkv), and one over the network with optimistic
// transactions (package etcdkv). For that reason, functions of transactions may run
// again, tables do not nest, ranges come in pages, and sizes are bounded.
//
// Package kvtest has the tests that every implementation must pass.
package kv

import (
	"context"
	"errors"
	"iter"
	"slices"
)

// Sizes in bytes that every implementation accepts. For larger keys and values, Put may
// return an error.
const (
	MaxKey   = 8 << 10
	MaxValue = 1 << 20
)

// Every implementation accepts this much in one Update. An Update that changes more may return
// an error and change nothing.
const (
	MaxChanges = 100              // records put or deleted
	MaxUpdate  = MaxValue + 1<<17 // bytes of the keys and values of these records
)

// Settings is a table that every store has, for information about the store itself. Its
// key "format" is reserved for the implementation.
const Settings = "format"

// Errors, wrapped with context. Test for them with errors.Is.
var (
	// ErrInUse: another process has the file open.
	ErrInUse = errors.New("file is in use")
	// ErrDamaged: the stored data differs from what was written.
	ErrDamaged = errors.New("file is damaged")
	// ErrFormat: the stored data is of a newer version, or for another purpose.
	ErrFormat = errors.New("file has another format")
	// ErrNewer: a record has something that this version does not know.
	ErrNewer = errors.New("a record was written by a newer version: use a newer msl-hsm")
	// ErrEmpty: nothing is stored where something should be.
	ErrEmpty = errors.New("file is empty")
	// ErrExists: something of that name already exists.
	ErrExists = errors.New("exists already")
	// ErrForged: someone without the key that authenticates the store changed it.
	ErrForged = errors.New("state is not authentic")
	// ErrUncertain: a change may or may not have been made, since etcd did not answer, or since
	// the disk failed when it was written already.
	ErrUncertain = errors.New("the change may or may not have been made")
	// ErrStale: the copy of a [Shared] store may be out of date.
	ErrStale = errors.New("too old to rely on")
)

// A Store keeps records. It is safe for concurrent use.
//
// The function of a transaction may run again, and on a goroutine other than the
// caller's. It must therefore set its result variables anew each time, and must not wait
// for another transaction.
type Store interface {
	// View calls fn with a snapshot that does not change during the call. It includes the
	// changes of every Update that returned before. An error of fn is returned unchanged.
	View(ctx context.Context, fn func(Reader) error) error
	// Update calls fn. If fn returns nil, all its changes are durable when Update
	// returns. If fn returns an error, that error is returned unchanged, and nothing is
	// changed. Others do not change records that fn has read in the meantime. After an error
	// of the store, the change may or may not have been made. An Update that changes
	// nothing costs no write.
	Update(ctx context.Context, fn func(Tx) error) error
}

// A Committer is a store in which several Updates may share a commit.
type Committer interface {
	Store
	// OnCommit makes fn be called with the transaction of a commit, after the commit's
	// functions have changed something and before it is durable. An error of fn fails all
	// of them. It is set once, before the first Update.
	OnCommit(fn func(Tx) error)
}

// A Shared store is also changed by other processes. It has a copy of most tables in
// memory, which follows their changes.
type Shared interface {
	Store
	// Recall is View on the copy, and makes no request. It includes the changes of every
	// Update of this process that returned before, and soon those of others. A copy that
	// has not been confirmed up to date for longer than the store permits is [ErrStale].
	Recall(ctx context.Context, fn func(Reader) error) error
}

// A Reader reads within a transaction. Results are valid until the function of the
// transaction returns, and must not be modified.
type Reader interface {
	// Get returns a value, or nil if the key does not exist.
	Get(table string, key []byte) ([]byte, error)
	// Range returns the pairs with keys from from up to, but excluding, to, in the
	// order of keys compared as bytes. A nil to means no upper bound. It returns at
	// most limit pairs, and fewer only if the range has no more.
	Range(table string, from, to []byte, limit int) ([]Pair, error)
	// Prefetch reads what Get will be asked for, with few requests, in stores in which
	// each Get would be a request. It does not change results.
	Prefetch(table string, keys ...[]byte) error
}

// A Tx also writes. Its reads see its own writes.
type Tx interface {
	Reader
	// Put adds or replaces a pair. The key must not be empty. Put retains neither
	// slice.
	Put(table string, key, value []byte) error
	// Delete removes a pair, if it exists.
	Delete(table string, key []byte) error
}

// A Pair is a key with its value.
type Pair struct{ Key, Value []byte }

// pageSize is how many pairs All reads at a time.
const pageSize = 256

// All returns the pairs of a range in the order of keys, reading a page at a time. It
// stops after an error. Changes made after All began may or may not be included.
func All(r Reader, table string, from, to []byte) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		for {
			page, err := r.Range(table, from, to, pageSize)
			if err != nil {
				yield(Pair{}, err)
				return
			}
			for _, p := range page {
				if !yield(p, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
			from = After(page[len(page)-1].Key)
		}
	}
}

// After returns the first key after key, for use as the from of a range.
func After(key []byte) []byte { return append(slices.Clip(key), 0) }

// PrefixEnd returns the first key after all keys that begin with prefix, for use as the
// to of a range, or nil if there is none.
func PrefixEnd(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for len(end) > 0 {
		last := len(end) - 1
		if end[last]++; end[last] != 0 {
			return end
		}
		end = end[:last]
	}
	return nil
}
