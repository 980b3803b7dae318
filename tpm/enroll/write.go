package enroll

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
)

// Each calls fn for everything that is stored at one moment, table by table and in the
// order of keys. fn must not retain its arguments. If the database does not remember that
// moment long enough, Each returns an error, and everything has to be read again.
func (s Stored) Each(ctx context.Context, fn func(table string, p kv.Pair) error) error {
	began := false
	return s.store.View(ctx, func(r kv.Reader) error {
		if began {
			return errors.New("enroll: the store no longer has the snapshot that was being read: try again")
		}
		began = true
		for _, table := range Tables() {
			for p, err := range kv.All(r, table, nil, nil) {
				if err == nil {
					err = fn(table, p)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// WriteFile writes records, wherever they are kept, to a new file at path, checks it, and
// counts them by state. If the file exists, the error is [ErrExists]; if writing fails,
// the file is removed.
func WriteFile(ctx context.Context, path string, from Stored) (states map[State]int, err error) {
	return Files{}.Write(ctx, path, from)
}

// Write is [WriteFile] for an authenticated file.
func (f Files) Write(ctx context.Context, path string, from Stored) (states map[State]int, err error) {
	db, err := boltkv.Open(path, layout(new(bool)), boltkv.CreateNew)
	if err != nil {
		return nil, err
	}
	if err = copyTo(ctx, db, from); err == nil {
		f.Guard.Trust = authkv.Vouch
		err = f.guard(&File{db: db})
	}
	if err = errors.Join(err, db.Close()); err == nil {
		states, err = checkFile(path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("enroll: write %s: %w", path, err), os.Remove(path))
	}
	return states, nil
}

// copyTo copies records into a store that has none.
func copyTo(ctx context.Context, store kv.Store, from Stored) error {
	to, err := kv.BeginCopy(ctx, store, tables())
	if err != nil {
		return err
	}
	w := kv.Writer{To: to}
	if err := from.Each(ctx, func(table string, p kv.Pair) error { return w.Add(ctx, table, p) }); err != nil {
		return err
	}
	if err := w.Flush(ctx); err != nil {
		return err
	}
	return to.Finish(ctx)
}
