package boltkv

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A DB is an open file. It is safe for concurrent use.
type DB struct {
	db     *bbolt.DB
	path   string
	layout Layout
	writes group
	finish func(kv.Tx) error // or nil
}

var _ kv.Committer = (*DB)(nil)

// OnCommit implements [kv.Committer].
func (d *DB) OnCommit(fn func(kv.Tx) error) { d.finish = fn }

// View implements [kv.Store].
func (d *DB) View(ctx context.Context, fn func(kv.Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return view(d.db, func(t *bbolt.Tx) error { return fn(&tx{tx: t, layout: &d.layout}) })
}

// Update implements [kv.Store]. Once begun, it does not return before the disk has
// answered, even if ctx is done.
func (d *DB) Update(ctx context.Context, fn func(kv.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.write(fn)
}

// Close waits for running transactions and closes the file.
func (d *DB) Close() error {
	if err := d.db.Close(); err != nil {
		return d.layout.Explain(d.path, fmt.Errorf("close %s: %w", d.path, err))
	}
	return nil
}

// Size returns the size of the file in bytes.
func (d *DB) Size() (n int64, err error) {
	err = view(d.db, func(t *bbolt.Tx) error {
		n = t.Size()
		return nil
	})
	return n, err
}

// Snapshot writes the current state to w, as a file that can be opened. It does not
// block writers.
func (d *DB) Snapshot(w io.Writer) error {
	return view(d.db, func(t *bbolt.Tx) error {
		_, err := t.WriteTo(w)
		return err
	})
}

// Free checks the pages of the file, using a temporary copy in the same directory, and
// returns the number of bytes in free pages, which the next records will use.
func (d *DB) Free() (int64, error) {
	copied, err := newBeside(d.path, "check")
	if err != nil {
		return 0, d.layout.Explain(d.path, err)
	}
	defer copied.discard()
	if err := d.Snapshot(copied); err != nil {
		return 0, d.layout.Explain(d.path, err)
	}
	free, err := d.layout.freeIn(copied.Name())
	if err != nil {
		return 0, d.layout.Explain(d.path, err)
	}
	return free, nil
}

// guard turns a crash on damaged or vanished pages, which bbolt maps into memory, into
// an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damage("%v", p)
		}
	}()
	return fn()
}

func view(db *bbolt.DB, fn func(*bbolt.Tx) error) error {
	return guard(func() error { return db.View(fn) })
}

func update(db *bbolt.DB, fn func(*bbolt.Tx) error) error {
	return guard(func() error { return db.Update(fn) })
}
