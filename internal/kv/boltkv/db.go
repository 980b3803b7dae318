package boltkv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"

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
	opened fs.FileInfo       // of the file, when it was opened
	size   atomic.Int64      // the largest size seen: it never shrinks
	newest atomic.Int64      // the number of the last transaction that changed it: it only grows
	broken atomic.Pointer[error]
}

var _ kv.Committer = (*DB)(nil)

// OnCommit implements [kv.Committer].
func (d *DB) OnCommit(fn func(kv.Tx) error) { d.finish = fn }

// View implements [kv.Store].
func (d *DB) View(ctx context.Context, fn func(kv.Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.view(func(t *bbolt.Tx) error { return fn(&tx{tx: t, layout: &d.layout}) })
}

// Update implements [kv.Store]. Once started, it does not return before the disk has
// answered, even if ctx is done.
func (d *DB) Update(ctx context.Context, fn func(kv.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.write(fn)
}

// Writable returns why the file cannot be written, by writing a transaction that changes no
// record. Update does not write one.
func (d *DB) Writable() error { return d.update(func(*bbolt.Tx) error { return nil }) }

// Close waits for running transactions and closes the file.
func (d *DB) Close() error {
	if broken := d.broken.Load(); broken != nil {
		return d.layout.Explain(d.path, *broken) // bbolt would wait for a lock
	}
	if err := d.db.Close(); err != nil {
		return d.layout.Explain(d.path, fmt.Errorf("close %s: %w", d.path, err))
	}
	return nil
}

// Size returns the size of the file in bytes.
func (d *DB) Size() (n int64, err error) {
	err = d.view(func(t *bbolt.Tx) error {
		n = t.Size()
		return nil
	})
	return n, err
}

// Snapshot writes the current state to w, as a file that can be opened. It does not
// block writers.
func (d *DB) Snapshot(w io.Writer) error {
	return d.view(func(t *bbolt.Tx) error {
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

// sound checks that the file is still at its path, and whole: otherwise writes are lost,
// and reads may find nothing.
func (d *DB) sound() error {
	if broken := d.broken.Load(); broken != nil {
		return *broken
	}
	before := d.size.Load() // before the file is examined, since it may grow at any time
	now, err := os.Stat(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !os.SameFile(now, d.opened):
		return fmt.Errorf("%s no longer exists: it was removed or replaced while it was open, and what is written now would be lost: put the file back, or end this process, restore a backup, and start again", d.path)
	case err != nil:
		return err
	case now.Size() < before:
		return damage("it became shorter while it was open")
	}
	d.size.CompareAndSwap(before, now.Size())
	return nil
}

// view reads. A crash before the transaction has started leaves a bbolt lock that nothing
// releases, so the file is not used again.
func (d *DB) view(fn func(*bbolt.Tx) error) error {
	began, least := false, d.newest.Load()
	return d.once(&began, func() error {
		return d.db.View(func(t *bbolt.Tx) error {
			began = true
			if int64(t.ID()) < least {
				return errWentBack()
			}
			return fn(t)
		})
	})
}

// update writes. A crash anywhere leaves a lock.
func (d *DB) update(fn func(*bbolt.Tx) error) error {
	never, number, ran := false, int64(0), false
	err := d.once(&never, func() error {
		return d.db.Update(func(t *bbolt.Tx) error {
			if number = int64(t.ID()); number <= d.newest.Load() {
				return errWentBack()
			}
			err := fn(t)
			ran = err == nil
			return err
		})
	})
	switch {
	case err == nil:
		d.newest.Store(number)
	case ran:
		return d.committed(number, d.ofDisk(err))
	}
	return d.ofDisk(err)
}

// committed adds [kv.ErrUncertain] to the error of a commit if readers see what it wrote: the last
// sync may fail after that.
func (d *DB) committed(number int64, err error) error {
	seen := false
	unread := d.view(func(t *bbolt.Tx) error {
		seen = int64(t.ID()) >= number
		return nil
	})
	if seen || unread != nil {
		err = fmt.Errorf("%w: %w", err, kv.ErrUncertain)
	}
	return err
}

// ofDisk adds the path to an error of fdatasync, and what to do about a failing disk. Errors of
// functions that a transaction calls are unchanged.
func (d *DB) ofDisk(err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		err = &fs.PathError{Op: "sync", Path: d.path, Err: errno}
	}
	if at, ok := err.(*fs.PathError); ok && at.Err == syscall.EIO {
		err = diskFails(err)
	}
	return err
}

func errWentBack() error {
	return damage("an earlier copy was written over it while it was open: end this process, restore the newest backup, and start again")
}

// once runs a transaction. If it crashes while harmless is not set, all later ones fail
// with its error.
func (d *DB) once(harmless *bool, transaction func() error) error {
	if err := d.sound(); err != nil {
		return err
	}
	returned := false
	err := guard(func() error {
		err := transaction()
		returned = true
		return err
	})
	if returned {
		return err
	}
	if unreadable := readable(d.path); unreadable != nil {
		err = unreadable
	}
	if !*harmless {
		d.broken.Store(&err)
	}
	return err
}

// readable reads a file after a crash: in a mapped file, pages that the disk cannot read
// crash just like missing ones.
func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(io.Discard, f); err != nil {
		return diskFails(err)
	}
	return nil
}

func view(db *bbolt.DB, fn func(*bbolt.Tx) error) error {
	return guard(func() error { return db.View(fn) })
}

func update(db *bbolt.DB, fn func(*bbolt.Tx) error) error {
	return guard(func() error { return db.Update(fn) })
}
