package authkv

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Store is a store whose records are authenticated. All its tables except those apart
// are in the sum.
type Store struct {
	kv.Store
	key    Key
	tables []string // in the sum, without the settings
	hash   hasher
	memory *memory // of a store that only this process changes; otherwise nil
	shares bool    // commits, so that finish makes the root
	last   *commit // the one started; only for use within a transaction

	verified func(b []byte) (root, bool) // finds a root whose tag was verified before, or nil
}

// A commit is what several functions change together.
type commit struct {
	tx      kv.Tx
	delta   sum
	room    room
	changes uint64 // of its root, once it has one
}

// finish makes the root of a commit. If nothing in the sum changed, it only makes sure that the
// store is still the one that was opened.
func (s *Store) finish(inner kv.Tx) error {
	if s.last == nil || s.last.tx != inner {
		_, err := s.knownRoot(inner)
		return err
	}
	return s.last.seal(s)
}

// commitOf returns what the functions of a transaction change together. A function that
// fails after a change aborts the whole transaction.
func (s *Store) commitOf(inner kv.Tx) *commit {
	if !s.shares {
		return &commit{tx: inner}
	}
	if s.last == nil || s.last.tx != inner {
		s.last = &commit{tx: inner}
	}
	return s.last
}

// Open returns an authenticated store on top of another one, which has a root. tables are
// those in the sum; the settings are always included.
func Open(store kv.Store, key Key, tables []string) *Store {
	return &Store{Store: store, key: key, tables: tables, hash: hash}
}

// own makes the store notice if another process changes its root.
func (s *Store) own(ctx context.Context) error {
	return s.Store.View(ctx, func(r kv.Reader) error {
		b, err := r.Get(kv.Settings, []byte(rootKey))
		if err == nil {
			s.memory = remember(b)
		}
		return err
	})
}

// share lets the functions of a commit share a root.
func (s *Store) share() {
	if c, ok := s.Store.(kv.Committer); ok {
		s.shares = true
		c.OnCommit(s.finish)
	}
}

// View implements [kv.Store].
func (s *Store) View(ctx context.Context, fn func(kv.Reader) error) error {
	if s.memory == nil {
		return s.Store.View(ctx, fn)
	}
	return s.memory.view(func(fn func(kv.Reader) error) error { return s.Store.View(ctx, fn) }, s.tables, fn)
}

// rootIn returns the root in a store. The tag of a root that this process made or verified
// need not be checked, and may be of a key that was lost since.
func (s *Store) rootIn(r kv.Reader) (root, []byte, error) {
	b, err := s.knownRoot(r)
	if err != nil {
		return root{}, nil, err
	}
	found, err := s.judged(b)
	return found, b, err
}

// judged returns the root in a record, which is known if there is a memory.
func (s *Store) judged(b []byte) (root, error) {
	if s.memory != nil {
		return readHead(b), nil
	}
	if s.verified != nil {
		if found, ok := s.verified(b); ok {
			return found, nil
		}
	}
	return decodeRoot(b, s.key)
}

// knownRoot returns the record of the root, which this process made if there is a memory.
func (s *Store) knownRoot(r kv.Reader) ([]byte, error) {
	b, err := r.Get(kv.Settings, []byte(rootKey))
	if err == nil && s.memory != nil && s.memory.knows(b, s.memory.newest()) != nil {
		err = errReplaced()
	}
	return b, err
}

// Begin makes the root of a store that has nothing in the tables. If there is a root, the
// error is [kv.ErrExists]: another process made it meanwhile, and may have gone on.
func Begin(ctx context.Context, store kv.Store, key Key) error {
	first, err := newRoot(sum{}).encode(key)
	if err != nil {
		return err
	}
	return store.Update(ctx, func(tx kv.Tx) error {
		there, err := tx.Get(kv.Settings, []byte(rootKey))
		if err != nil {
			return err
		}
		if there != nil {
			return fmt.Errorf("authkv: a record that authenticates the others %w", kv.ErrExists)
		}
		return tx.Put(kv.Settings, []byte(rootKey), first)
	})
}

// Begun reports whether a store has a root, or records in tables. Otherwise somebody who made
// it was interrupted.
func Begun(ctx context.Context, store kv.Store, tables []string) (begun bool, err error) {
	err = store.View(ctx, func(r kv.Reader) error {
		b, err := r.Get(kv.Settings, []byte(rootKey))
		begun = b != nil
		for _, table := range tables {
			if err != nil || begun {
				return err
			}
			var found []kv.Pair
			found, err = r.Range(table, nil, nil, 1)
			begun = len(found) > 0
		}
		return err
	})
	return begun, err
}

// MakeRoot makes the root of a store with the records that were seen.
func (s *Seen) MakeRoot(ctx context.Context, store kv.Store, key Key) error {
	first, err := newRoot(s.sum).encode(key)
	if err != nil {
		return err
	}
	return store.Update(ctx, func(tx kv.Tx) error { return tx.Put(kv.Settings, []byte(rootKey), first) })
}

// Sign makes the root of a store with records: they are authentic from then on, whoever
// wrote them.
func (s *Store) Sign(ctx context.Context) error {
	return s.Store.Update(ctx, func(tx kv.Tx) error {
		found, err := s.sumOf(tx)
		if err != nil {
			return err
		}
		first, err := newRoot(found).encode(s.key)
		if err != nil {
			return err
		}
		return tx.Put(kv.Settings, []byte(rootKey), first)
	})
}

// HasRoot reports whether a store has a root, without checking it.
func HasRoot(ctx context.Context, store kv.Store) (has bool, err error) {
	err = store.View(ctx, func(r kv.Reader) error {
		b, err := r.Get(kv.Settings, []byte(rootKey))
		has = b != nil
		return err
	})
	return has, err
}

// inSum reports whether a record is in the sum over tables. Not included are the format
// record, which belongs to the store below, the root itself, the mark of an incomplete
// copy, which only prevents its use as a state, and what is attached to a backup, which
// is not part of it.
func inSum(tables []string, table string, key []byte) bool {
	if table == kv.Settings {
		return !slices.Contains([]string{rootKey, "format", "importing", "attached"}, string(key))
	}
	return slices.Contains(tables, table)
}

// Verify reads all tables, and compares them with the root: a difference is
// [kv.ErrForged].
func (s *Store) Verify(ctx context.Context) error {
	return s.View(ctx, func(r kv.Reader) error {
		found, err := s.sumOf(r)
		if err != nil {
			return err
		}
		b, err := r.Get(kv.Settings, []byte(rootKey)) // with a memory, r knows it
		if err != nil {
			return err
		}
		told, err := s.judged(b)
		if err != nil {
			return err
		}
		return told.compare(&found)
	})
}

func (s *Store) sumOf(r kv.Reader) (found sum, err error) {
	in := &room{}
	for _, table := range append([]string{kv.Settings}, s.tables...) {
		for p, err := range kv.All(r, table, nil, nil) {
			if err != nil {
				return found, err
			}
			if inSum(s.tables, table, p.Key) {
				found.plus(s.hash(in, table, p.Key, p.Value))
			}
		}
	}
	return found, nil
}

// errDiffers is a [kv.ErrForged]: the root is authentic, but does not match these
// records.
var errDiffers = fmt.Errorf("%w: records were changed, added, removed or put back by somebody without the key of these servers", kv.ErrForged)

func (r *root) compare(found *sum) error {
	if r.sum != *found {
		return fmt.Errorf("authkv: %w", errDiffers)
	}
	return nil
}

// Update implements [kv.Store]. A root whose tag does not match is [kv.ErrForged].
func (s *Store) Update(ctx context.Context, fn func(kv.Tx) error) error {
	_, err := s.update(ctx, func(tx *tx) error { return fn(tx) })
	return err
}

// update also reports whether there is a new root.
func (s *Store) update(ctx context.Context, fn func(*tx) error) (changed bool, err error) {
	var own *commit
	err = s.Store.Update(ctx, func(inner kv.Tx) error {
		tx := &tx{Tx: inner, store: s}
		err := fn(tx)
		if own, changed = tx.own, tx.own != nil; err != nil || !changed || s.shares {
			return err
		}
		return own.seal(s)
	})
	if err == nil && changed {
		s.memory.committed(own.changes)
	}
	return changed, err
}

// Renew makes the newest version of the key authenticate the store, which must be
// authentic. It changes nothing if that version already does.
func (s *Store) Renew(ctx context.Context) error {
	_, err := s.update(ctx, func(tx *tx) error {
		r, b, err := s.rootIn(tx.Tx)
		if err != nil {
			return err
		}
		newest, err := r.encode(s.key)
		if err != nil || bytes.Equal(newest, b) {
			return err
		}
		tx.own = s.commitOf(tx.Tx)
		return tx.Tx.Put(kv.Settings, []byte(rootKey), bytes.Clone(b)) // a change, so that a new root is made
	})
	return err
}

// A tx keeps the sum of what it changes.
type tx struct {
	kv.Tx
	store *Store
	own   *commit // or nil, if nothing in the sum changed
}

// Put implements [kv.Tx].
func (t *tx) Put(table string, key, value []byte) error {
	if !inSum(t.store.tables, table, key) {
		return t.Tx.Put(table, key, value)
	}
	err := t.change(table, key, func() error { return t.Tx.Put(table, key, value) })
	if err == nil {
		t.own.delta.plus(t.store.hash(&t.own.room, table, key, value))
	}
	return err
}

// Delete implements [kv.Tx].
func (t *tx) Delete(table string, key []byte) error {
	if !inSum(t.store.tables, table, key) {
		return t.Tx.Delete(table, key)
	}
	return t.change(table, key, func() error { return t.Tx.Delete(table, key) })
}

// change makes a change, and removes the old record from the sum.
func (t *tx) change(table string, key []byte, do func() error) error {
	found, err := t.Get(table, key)
	if err != nil {
		return err
	}
	old := bytes.Clone(found) // do may overwrite it
	if err := do(); err != nil {
		return err
	}
	if t.own == nil {
		t.own = t.store.commitOf(t.Tx)
	}
	if old != nil {
		t.own.delta.minus(t.store.hash(&t.own.room, table, key, old))
	}
	return nil
}

// seal writes the root after the changes.
func (c *commit) seal(s *Store) error {
	r, _, err := s.rootIn(c.tx)
	if err != nil {
		return err
	}
	r.changes++
	r.sum.plusSum(&c.delta)
	b, err := r.encode(s.key)
	if err != nil {
		return err
	}
	c.changes = r.changes
	s.memory.sealed(r.changes, b)
	return c.tx.Put(kv.Settings, []byte(rootKey), b)
}

// Verify is [Store.Verify] of a store that is authenticated, and nothing for any other.
func Verify(ctx context.Context, store kv.Store) error {
	if s, ok := store.(interface{ Verify(context.Context) error }); ok {
		return s.Verify(ctx)
	}
	return nil
}

// Renew is [Store.Renew] of a store that is authenticated, and nothing for any other.
func Renew(ctx context.Context, store kv.Store) error {
	if s, ok := store.(interface{ Renew(context.Context) error }); ok {
		return s.Renew(ctx)
	}
	return nil
}
