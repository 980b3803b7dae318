//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A DB is a store in a cluster. It is safe for concurrent use.
type DB struct {
	*cluster
	layout Layout
	// made is the revision at which the store was made: every transaction compares it.
	made int64
	// turn is held by the one Update of this process that runs again after a conflict:
	// several would only disturb each other.
	turn  chan struct{}
	marks marks

	mu sync.RWMutex // held for writing by Close
}

var _ kv.Store = (*DB)(nil)

var (
	// errAgain: the function of a transaction has to run again.
	errAgain  = errors.New("etcdkv: run it again")
	errClosed = errors.New("etcdkv: the store is closed")
)

// View implements [kv.Store].
func (d *DB) View(ctx context.Context, fn func(kv.Reader) error) error {
	return d.repeat(ctx, func() error {
		s := &snapshot{ctx: ctx, db: d}
		return s.outcome(fn(s))
	})
}

// Update implements [kv.Store].
func (d *DB) Update(ctx context.Context, fn func(kv.Tx) error) error {
	return d.repeat(ctx, func() error {
		t := &tx{snapshot: snapshot{ctx: ctx, db: d}, changes: map[string]change{}}
		if err := t.outcome(fn(t)); err != nil || len(t.changes) == 0 {
			return err
		}
		return d.commit(ctx, t)
	})
}

// repeat runs a transaction until it returns anything but errAgain, or the context ends.
func (d *DB) repeat(ctx context.Context, run func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.client == nil {
		return errClosed
	}
	err := run()
	if err != errAgain {
		return err
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	const patient = 5 // with longer waits, an Update that lost often would wait longer than a change takes, and lose again
	for try := 0; err == errAgain && pause(ctx, min(try, patient)); try++ {
		err = run()
	}
	if err == errAgain {
		return ctx.Err()
	}
	return err
}

// pause waits, longer with each try and for a random time, so that conflicting callers do
// not conflict again. It returns false once ctx is done.
func pause(ctx context.Context, try int) bool {
	const first, longest = time.Millisecond, 250 * time.Millisecond
	timer := time.NewTimer(rand.N(min(first<<min(try, 10), longest)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// Close waits for running transactions and closes the connections.
func (d *DB) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client == nil {
		return nil
	}
	d.marks.removeOwn()
	err := d.client.Close()
	d.client = nil
	return err
}

// exists compares the format record with the one found by Open.
func (d *DB) exists() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(d.key(kv.Settings, formatKey)), "=", d.made)
}

func (d *DB) key(table, key string) string { return d.cluster.key(d.layout.place(table), key) }

func (d *DB) errGone() error {
	return fail(kv.ErrEmpty, "the store at %q was removed or replaced while it was in use: restore it, and restart", d.config.Prefix)
}
