// Package kv is what a state needs of a database: records by key in a few tables,
// transactions, and ranges in the order of keys.
//
// It is small so that very different databases can be behind it: [Store] has one
// implementation in a file (package boltkv), and may have one over the network, where
// transactions are optimistic. So the functions of transactions may run again, there
// are no tables within tables, ranges come in pages, and sizes have bounds.
//
// Package kvtest has the tests that every implementation passes.
package kv

import (
	"context"
	"errors"
	"iter"
	"slices"
)

// Sizes that every implementation takes, in bytes. Larger keys and values may be
// errors of Put.
const (
	MaxKey   = 8 << 10
	MaxValue = 1 << 20
)

// Settings is a table that every store has, for what the store says of itself. The
// key "format" in it belongs to the implementation.
const Settings = "format"

// Errors, wrapped with what they are about. Test them with errors.Is.
var (
	// ErrInUse: another process has the file open.
	ErrInUse = errors.New("file is in use")
	// ErrDamaged: what is stored is not what was written.
	ErrDamaged = errors.New("file is damaged")
	// ErrFormat: what is stored is of a newer version, or for another purpose.
	ErrFormat = errors.New("file has another format")
	// ErrEmpty: nothing is stored where something should be.
	ErrEmpty = errors.New("file is empty")
	// ErrExists: there is something of that name.
	ErrExists = errors.New("exists already")
)

// A Store keeps records. It is safe for use by many goroutines.
//
// The function of a transaction may run again, and on another goroutine than the
// caller's. So whatever it leaves in variables must be set anew each time, and it must
// not wait for another transaction.
type Store interface {
	// View calls fn with a state that does not change meanwhile. It includes what
	// was changed by every Update that returned before. An error of fn is returned
	// as it is.
	View(ctx context.Context, fn func(Reader) error) error
	// Update calls fn. When it returns nil, all that fn changed is durable. If fn
	// returns an error, that is returned as it is, and nothing is changed. What fn
	// has read is not changed by others meanwhile. After an error of the store, the
	// change may have been made or not. An Update that changes nothing costs no
	// write.
	Update(ctx context.Context, fn func(Tx) error) error
}

// A Reader reads within a transaction. What it returns is valid until the function
// of the transaction returns, and must not be changed.
type Reader interface {
	// Get returns a value, which is nil if there is no such key.
	Get(table string, key []byte) ([]byte, error)
	// Range returns pairs in the order of keys, compared as bytes: from and what
	// follows, as long as it is before to. A nil to is no bound. There are limit
	// of them, and fewer only at the end.
	Range(table string, from, to []byte, limit int) ([]Pair, error)
}

// A Tx also writes. It reads what it wrote.
type Tx interface {
	Reader
	// Put adds or replaces a pair. The key must not be empty. It keeps neither
	// slice.
	Put(table string, key, value []byte) error
	// Delete removes a pair, if there is one.
	Delete(table string, key []byte) error
}

// A Pair is a key with its value.
type Pair struct{ Key, Value []byte }

// pageSize is how many pairs All reads at a time.
const pageSize = 256

// All returns the pairs of a range in the order of keys, a page at a time. It ends
// after an error. What was changed since All began may be in it or not.
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

// After is the first key after another one, for the from of a range.
func After(key []byte) []byte { return append(slices.Clip(key), 0) }

// PrefixEnd is the first key after all that begin with prefix, for the to of a
// range: nil if there is none.
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
