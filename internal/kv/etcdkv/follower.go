//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Follower is a store with a copy of its tables in memory, except for those that are
// [Layout.Apart]. A watch keeps the copy up to date, and a request each second, or more
// often, confirms that it is. Close ends both.
//
// While etcd does not answer these requests, an Update fails immediately, and Recall
// works until the copy is stale.
type Follower struct {
	*DB
	Following
	tables []string // those copied
	stop   context.CancelFunc
	done   chan struct{}
	now    chan struct{} // asks for a check before it is due

	mu      sync.RWMutex
	copied  tables
	applied int64         // the revision of the copy
	fresh   time.Time     // when the copy was up to date
	failed  error         // why the last check failed
	broken  error         // why there is no copy
	changed chan struct{} // closed when any of these changes
}

var _ kv.Shared = (*Follower)(nil)

// Follow copies the tables, and follows their changes until Close. It takes ownership of
// the store, which is closed if Follow fails.
func Follow(ctx context.Context, d *DB, how Following) (*Follower, error) {
	if how.Staleness == 0 {
		how.Staleness = 5 * time.Second
	}
	f := &Follower{DB: d, Following: how, done: make(chan struct{}), now: make(chan struct{}, 1), changed: make(chan struct{})}
	f.tables = append([]string{kv.Settings}, d.layout.Tables...)
	f.tables = slices.DeleteFunc(f.tables, func(table string) bool { return slices.Contains(d.layout.Apart, table) })
	if err := f.load(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	running, stop := context.WithCancel(context.Background())
	f.stop = stop
	go f.run(running)
	f.await(ctx, time.Now()) // copying much may take longer than Staleness
	return f, nil
}

// Recall implements [kv.Shared].
func (f *Follower) Recall(ctx context.Context, fn func(kv.Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := f.usable(); err != nil {
		return err
	}
	return fn(f.copied)
}

// usable returns why the copy cannot be relied on, or nil.
func (f *Follower) usable() error {
	switch {
	case f.broken != nil:
		return f.broken
	case age(f.fresh) <= f.Staleness:
		return nil
	case f.failed != nil:
		return fail(kv.ErrStale, "the copy of the state is %v old: %v", age(f.fresh).Truncate(time.Millisecond), f.failed)
	}
	return fail(kv.ErrStale, "the copy of the state is %v old", age(f.fresh).Truncate(time.Millisecond))
}

// age returns the time since t, by the clock that is further ahead: one may have stopped
// while the machine was suspended.
func age(t time.Time) time.Duration {
	return max(time.Since(t), time.Now().Round(0).Sub(t.Round(0)))
}

// Update implements [kv.Store]. When it returns, its changes are in the copy, unless etcd
// no longer answers.
func (f *Follower) Update(ctx context.Context, fn func(kv.Tx) error) error {
	if err := f.unreachable(); err != nil {
		return err
	}
	var noted *noting
	err := f.DB.Update(ctx, func(tx kv.Tx) error {
		noted = &noting{Tx: tx, apart: f.layout.Apart}
		return fn(noted)
	})
	if err == nil && noted.copied {
		f.await(ctx, time.Now())
	}
	return err
}

// unreachable returns why etcd cannot be asked now, or nil.
func (f *Follower) unreachable() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.failed != nil {
		return fmt.Errorf("etcdkv: nothing can be changed now: %w", f.failed)
	}
	return nil
}

// A noting transaction notes whether it changes a copied table.
type noting struct {
	kv.Tx
	apart  []string
	copied bool
}

// Put implements [kv.Tx].
func (n *noting) Put(table string, key, value []byte) error {
	n.note(table)
	return n.Tx.Put(table, key, value)
}

// Delete implements [kv.Tx].
func (n *noting) Delete(table string, key []byte) error {
	n.note(table)
	return n.Tx.Delete(table, key)
}

func (n *noting) note(table string) { n.copied = n.copied || !slices.Contains(n.apart, table) }

// await returns when the copy is up to date as of a time, or when that takes too long:
// the change is made in any case, and other servers see it.
func (f *Follower) await(ctx context.Context, at time.Time) {
	ctx, cancel := context.WithTimeout(ctx, f.Staleness)
	defer cancel()
	for {
		f.mu.RLock()
		fresh, changed := f.fresh, f.changed
		f.mu.RUnlock()
		if fresh.After(at) {
			return
		}
		select {
		case f.now <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// set changes fields, and wakes those waiting for changes.
func (f *Follower) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// Close stops the watch and closes the store.
func (f *Follower) Close() error {
	f.stop()
	<-f.done
	return f.DB.Close()
}
