package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// Import writes a state, wherever it is kept, to a prefix that has none or an empty one,
// and compares both. Every token issued until ended becomes invalid, unless keepTokens is
// true: a state may be outdated. That time is the present, by the servers of an empty state if
// they have noted it, otherwise by the clock here; if from was used later, the error is
// [state.ErrClockBehind]. If Import ends early, no server opens the
// result, and it can be called again with the same state. progress is as in state.Server.CopyTo.
func Import(ctx context.Context, c Config, from *state.Server, keepTokens bool, progress func(records int)) (ended time.Time, err error) {
	if !keepTokens {
		if ended, err = c.present(ctx); err == nil {
			err = state.UsedUntil(ctx, from, ended)
		}
		if err != nil {
			return ended, err
		}
	}
	db, err := c.place().Open(ctx, etcdkv.OpenOrCreate)
	if err != nil {
		return ended, err
	}
	return ended, errors.Join(c.importTo(ctx, db, from, ended, progress), db.Close())
}

// present asks the servers that have an empty state open, if there is one that they can use.
func (c Config) present(ctx context.Context) (time.Time, error) {
	s, err := Administer(ctx, c)
	if errors.Is(err, ErrEmpty) || errors.Is(err, kv.ErrUnfinished) || errors.Is(err, ErrForged) {
		return time.Now(), nil
	}
	if err != nil {
		return time.Time{}, err
	}
	at, err := s.Present(ctx)
	return at, errors.Join(err, s.Close())
}

// importTo ends the tokens issued until a time, if one is given.
func (c Config) importTo(ctx context.Context, db *etcdkv.DB, from *state.Server, ended time.Time, progress func(int)) error {
	copied, err := from.CopyTo(ctx, db, progress)
	if err != nil {
		return fmt.Errorf("etcd: write the state to %q: %w", c.Prefix, err)
	}
	if err := c.compare(ctx, copied, from); err != nil {
		return err
	}
	var store kv.Store = copied
	if c.Key != nil {
		if store, err = c.authenticate(ctx, copied, from); err != nil {
			return err
		}
	}
	if !ended.IsZero() {
		if err := state.EndTokens(store, ended); err != nil {
			return err
		}
	}
	return copied.Finish(ctx)
}

// authenticate makes the root of what was written, which may differ from what is stored.
func (c Config) authenticate(ctx context.Context, db kv.Store, from *state.Server) (*authkv.Store, error) {
	seen := authkv.NewSeen(copied())
	err := from.Each(ctx, func(table string, p kv.Pair) error {
		seen.Changed(table, p.Key, nil, p.Value)
		return nil
	})
	if err == nil {
		err = seen.MakeRoot(ctx, db, c.Key)
	}
	authentic := authkv.Open(db, c.Key, copied())
	if err == nil {
		err = authentic.Verify(ctx)
	}
	if errors.Is(err, ErrForged) {
		err = fmt.Errorf("etcd: something else wrote to %q meanwhile, such as a server: stop what uses that prefix, and try again", c.Prefix)
	}
	return authentic, err
}

// compare checks that etcd contains what was written.
func (c Config) compare(ctx context.Context, db kv.Store, from *state.Server) error {
	want, err := from.Digest(ctx)
	if err != nil {
		return err
	}
	got, err := state.DigestOf(ctx, db)
	if err == nil && got != want {
		err = fmt.Errorf("etcd: %d records are at %q, and not the %d of the file: part of another one was imported there before, or something else wrote there; remove all with etcdctl del --prefix %s/, and try again", got.Records, c.Prefix, want.Records, cmp.Or(c.Prefix, "msl-hsm"))
	}
	return err
}
