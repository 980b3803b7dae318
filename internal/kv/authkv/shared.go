package authkv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Shared is a [Store] on top of a [kv.Shared] store, whose copy in memory it verifies.
type Shared struct {
	*Store
	copied kv.Shared
	seen   *Seen

	mu       sync.Mutex
	verified []byte // the newest root whose tag was verified
	told     root   // its content
}

var _ kv.Shared = (*Shared)(nil)

// OpenShared is Open for a store with a copy in memory, whose records were passed to
// seen.
func OpenShared(store kv.Shared, key Key, tables []string, seen *Seen) *Shared {
	s := &Shared{Store: Open(store, key, tables), copied: store, seen: seen}
	s.Store.verified = func(b []byte) (root, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.told, s.verified != nil && bytes.Equal(b, s.verified)
	}
	return s
}

// Recall implements [kv.Shared]. A copy that differs from its root, or is older than one
// seen before, is [kv.ErrForged].
func (s *Shared) Recall(ctx context.Context, fn func(kv.Reader) error) error {
	return s.copied.Recall(ctx, func(r kv.Reader) error {
		b, err := r.Get(kv.Settings, []byte(rootKey))
		if err != nil {
			return err
		}
		if err := s.judge(b); err != nil {
			return err
		}
		return fn(r)
	})
}

// Update implements [kv.Store]. It checks the root that it made, and so notices if that
// is reverted. If what fn read was not authentic, which the copy shows by then, the error
// is [kv.ErrForged], although the change was made: nothing may depend on it.
func (s *Shared) Update(ctx context.Context, fn func(kv.Tx) error) error {
	changed, err := s.update(ctx, func(tx *tx) error { return fn(tx) })
	if err != nil || !changed {
		return err
	}
	err = s.Recall(ctx, func(kv.Reader) error { return nil })
	if errors.Is(err, kv.ErrForged) {
		return err
	}
	return nil // a copy that is old, or that ctx did not wait for, reports this the next time
}

// judge compares the root, which is in the copy, with the sum of the copy.
func (s *Shared) judge(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verified == nil || !bytes.Equal(b, s.verified) {
		r, err := decodeRoot(b, s.key)
		if err != nil {
			return err
		}
		if s.verified != nil {
			if err := r.follows(&s.told); err != nil {
				return err
			}
		}
		s.verified, s.told = bytes.Clone(b), r
	}
	if s.seen.back != nil {
		return s.seen.back
	}
	return s.told.compare(&s.seen.sum)
}

// Seen is the sum of the records of a copy. Its methods are called while the copy
// changes, and therefore never while Recall reads it.
type Seen struct {
	tables []string
	sum    sum
	back   error // the root was put back, or removed, at some point during the watch
}

// NewSeen returns the sum of no records.
func NewSeen(tables []string) *Seen { return &Seen{tables: tables} }

// Reset forgets all records: the copy is made anew.
func (s *Seen) Reset() { s.sum = sum{} }

// Changed replaces a record; a nil value means none. A root that does not follow the
// previous one is remembered even if nothing is recalled before the next one: otherwise
// someone who put back a store could let it continue from there.
func (s *Seen) Changed(table string, key, old, value []byte) {
	if table == kv.Settings && string(key) == rootKey && old != nil && s.back == nil {
		s.back = judgeNext(old, value)
	}
	if !inSum(s.tables, table, key) {
		return
	}
	if old != nil {
		s.sum.remove(table, key, old)
	}
	if value != nil {
		s.sum.add(table, key, value)
	}
}

// judgeNext compares a root with the previous one, without checking their tags.
func judgeNext(old, value []byte) error {
	if len(old) < headSize || len(value) < headSize {
		return fmt.Errorf("authkv: %w: the record that authenticates the others was removed or replaced", kv.ErrForged)
	}
	before, after := readHead(old), readHead(value)
	return after.follows(&before)
}
