package authkv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Guard says how to authenticate a store that only one process at a time has open, such
// as a file. The zero value has no key.
type Guard struct {
	// Key returns the key, and the mark that records elsewhere that a root exists. It is
	// called once, when the store is open, and may be nil. A nil key means that the key
	// is not available: an authenticated store can then be read without verification, but
	// not changed. An error that is ErrNoKey says the same, and why. The mark may be nil.
	Key func() (Key, Mark, error)
	// Trust says how to treat a store without a root.
	Trust Trust
}

// A Mark records, in a place that writers of the store cannot change, that the store was
// authenticated: without a root it is then not accepted.
type Mark interface {
	// There reports whether the mark was made.
	There() (bool, error)
	// Make makes the mark.
	Make() error
}

// Trust is how far a store is trusted.
type Trust int

const (
	// Judge accepts a store without a root as it is, unless there is a mark. It changes
	// nothing.
	Judge Trust = iota
	// Adopt signs such a store, marks it, and makes the newest version of the key
	// authenticate one that has a root.
	Adopt
	// Vouch signs whatever is in the store, and marks it: an operator says that it is
	// right.
	Vouch
)

// Errors of a Guard, wrapped with context.
var (
	// ErrNoKey: the store is authenticated, and the key to change it is missing.
	ErrNoKey = errors.New("its records are authenticated with a key of the server, and no key store that has it was named")
	// ErrUnsigned is a [kv.ErrForged]: the store has no root, although there is a mark.
	ErrUnsigned = fmt.Errorf("%w: the record that authenticates the others is missing, and the key store says that there was one", kv.ErrForged)
)

// A Verdict is the result of checking a store.
type Verdict struct {
	Authentic bool  // the store is authenticated
	New       bool  // as of now
	Unmarked  error // why it could not be marked, or nil
}

// Over returns an authenticated store on top of another one, after comparing that with
// its root, or the other store itself if it is not authenticated. tables are those in the
// sum; former are others that earlier versions included. They stay included until Adopt
// or Vouch signs the store.
func (g Guard) Over(ctx context.Context, store kv.Store, tables, former []string) (kv.Store, Verdict, error) {
	rooted, err := HasRoot(ctx, store)
	if err != nil {
		return nil, Verdict{}, err
	}
	key, mark, err := g.key()
	switch {
	case err != nil && !errors.Is(err, ErrNoKey):
		return nil, Verdict{}, err
	case key == nil && rooted:
		return unjudged{store, cmp.Or(err, fmt.Errorf("authkv: %w", ErrNoKey))}, Verdict{}, nil
	case key == nil:
		return store, Verdict{}, nil
	}
	over := Open(store, soleKey{key}, tables)
	over.hash = hashFast
	verdict, err := g.judge(ctx, over, former, rooted, mark)
	if err != nil || !verdict.Authentic {
		return store, verdict, err
	}
	over.share()
	return over, verdict, over.own(ctx)
}

func (g Guard) key() (Key, Mark, error) {
	if g.Key == nil {
		return nil, nil, nil
	}
	key, mark, err := g.Key()
	if mark == nil {
		mark = noMark{}
	}
	return key, mark, err
}

func (g Guard) judge(ctx context.Context, s *Store, former []string, rooted bool, mark Mark) (found Verdict, err error) {
	marked, err := mark.There()
	if err != nil {
		return found, fmt.Errorf("authkv: find out whether it was authenticated before: %w", err)
	}
	found.Authentic = true
	switch {
	case g.Trust == Vouch, g.Trust == Adopt && !rooted && !marked:
		found.New, err = true, s.Sign(ctx)
	case rooted:
		err = g.verify(ctx, s, former)
	case marked:
		return found, fmt.Errorf("authkv: %w", ErrUnsigned)
	default:
		return Verdict{}, nil
	}
	if err == nil && !marked && g.Trust != Judge {
		found.Unmarked = mark.Make()
	}
	return found, err
}

// verify checks that a store matches its root, which may be one of an earlier version. No
// set of records has the sum of another: a match in either way is what was signed.
func (g Guard) verify(ctx context.Context, s *Store, former []string) error {
	tables := s.tables
	err := s.Verify(ctx)
	if errors.Is(err, errDiffers) && len(former) > 0 {
		s.tables = slices.Concat(tables, former)
		if err = s.Verify(ctx); err == nil && g.Trust == Adopt {
			s.tables = tables
			return s.Sign(ctx)
		}
	}
	if err == nil && g.Trust == Adopt {
		err = s.Renew(ctx)
	}
	return err
}

// An unjudged store is authenticated by a key that is not available.
type unjudged struct {
	kv.Store
	why error // an ErrNoKey
}

// Update returns [ErrNoKey].
func (u unjudged) Update(context.Context, func(kv.Tx) error) error { return u.why }

// A soleKey has distinct tags for stores that only one process at a time has open: their
// sums are computed differently.
type soleKey struct{ Key }

const soleUse = "msl-hsm state root of a file\x00"

// Tag implements [Key].
func (k soleKey) Tag(data []byte) ([]byte, error) {
	return k.Key.Tag(append([]byte(soleUse), data...))
}

// Check implements [Key].
func (k soleKey) Check(data, tag []byte) (bool, error) {
	return k.Key.Check(append([]byte(soleUse), data...), tag)
}

// noMark is used if no mark is kept.
type noMark struct{}

// There implements [Mark].
func (noMark) There() (bool, error) { return false, nil }

// Make implements [Mark].
func (noMark) Make() error { return nil }
