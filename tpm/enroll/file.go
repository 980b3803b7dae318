package enroll

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A File is [Records] in one file on the local disk, with go.etcd.io/bbolt. It
// has mode 0600 and holds no secrets.
type File struct {
	Stored
	// Verdict is the result of checking the authentication of the file when it was
	// opened.
	Verdict Verdict
	db      *boltkv.DB
}

// A RootKey authenticates records.
type RootKey = authkv.Key

// A Guard says how a file is authenticated.
type Guard = authkv.Guard

// A Verdict is the result of checking the authentication of a file.
type Verdict = authkv.Verdict

// Files opens and makes authenticated files, so that someone who can write one cannot
// lift a revocation or add a device undetected. Its zero value, which the functions of
// this package use, opens unauthenticated files.
type Files struct{ Guard Guard }

// ownKey makes tags specific to this use.
type ownKey struct{ RootKey }

const use = "msl-hsm state root of enrollments\x00"

// Tag implements [RootKey].
func (k ownKey) Tag(data []byte) ([]byte, error) { return k.RootKey.Tag(append([]byte(use), data...)) }

// Check implements [RootKey].
func (k ownKey) Check(data, tag []byte) (bool, error) {
	return k.RootKey.Check(append([]byte(use), data...), tag)
}

// KeyOfRecords returns the key that authenticates records, from one that may also have
// another use.
func KeyOfRecords(k RootKey) RootKey { return ownKey{k} }

// layout is the layout of files that predate checksums for every entry: records have
// their own, and everything else must lead to them. Opening sets fits if the derived
// tables match the records.
func layout(fits *bool) boltkv.Layout {
	return boltkv.Layout{
		Kind:    "enrollments",
		Name:    "file of enrollments",
		Plain:   tables(),
		Derived: derived(),
		Check: func(r kv.Reader) (err error) {
			*fits, err = storedTx{readOnly{r}}.check(map[State]int{})
			return err
		},
		Strict:   true,
		Newest:   authenticatedVersion,
		LockWait: 2 * time.Second,
		Explain:  explain,
	}
}

// OpenFile opens the file at path, or makes it in an existing directory. All of it is
// read and checked; a damaged or empty file is [ErrDamaged]. Only one process can have it
// open: otherwise the error is [ErrInUse], after two seconds.
func OpenFile(path string) (*File, error) { return Files{}.Open(path) }

// Open is [OpenFile] with authentication. The whole file is checked: one changed by
// someone without the key is [ErrForged]. [Guard.Trust] decides about a file without a
// root. A new file is authenticated.
func (f Files) Open(path string) (*File, error) {
	making := f
	making.Guard.Trust = authkv.Vouch
	file, err := making.open(path, boltkv.CreateNew)
	if errors.Is(err, ErrExists) {
		return f.open(path, boltkv.OpenExisting)
	}
	return file, err
}

func (f Files) open(path string, how boltkv.Opening) (*File, error) {
	file, err := unguarded(path, how)
	if err != nil {
		return nil, err
	}
	if err := f.guard(file); err != nil {
		err = errors.Join(explainGuard(path, err), file.Close())
		if how == boltkv.CreateNew {
			err = errors.Join(err, os.Remove(path))
		}
		return nil, err
	}
	return file, nil
}

// unguarded opens a file without authenticating it, and makes the derived tables match
// its records.
func unguarded(path string, how boltkv.Opening) (*File, error) {
	fits := true
	db, err := boltkv.Open(path, layout(&fits), how)
	if err != nil {
		return nil, err
	}
	file := &File{Stored: Stored{db}, db: db}
	if err = db.View(context.Background(), kv.Copied); err == nil && !fits {
		err = file.reindex()
	}
	if err != nil {
		return nil, errors.Join(explain(path, err), file.Close())
	}
	return file, nil
}

// authenticatedVersion is that of a file whose records are authenticated.
const authenticatedVersion = 2

// guard authenticates the records, and what leads to them. The derived tables were
// compared with those.
func (f Files) guard(file *File) error {
	g := f.Guard
	if g.Key != nil {
		g.Key = func() (RootKey, authkv.Mark, error) {
			key, mark, err := f.Guard.Key()
			if key != nil {
				key = KeyOfRecords(key)
			}
			return key, mark, err
		}
	}
	store, verdict, err := g.Over(context.Background(), file.db, tables(), nil)
	if err == nil && verdict.Authentic {
		err = file.db.Raise(authenticatedVersion)
	}
	file.Stored, file.Verdict = Stored{store}, verdict
	return err
}

// explainGuard adds the name of the file to an authentication error.
func explainGuard(path string, err error) error {
	if errors.Is(err, ErrForged) {
		return fmt.Errorf("enroll: %s cannot be used: %w", path, err)
	}
	return err
}

// Check verifies that the file is authentic, if it is authenticated, reads everything and
// counts the records by state. Entries that do not lead to a record, or do not match it,
// are [ErrDamaged].
func (f *File) Check() (map[State]int, error) {
	if err := authkv.Verify(context.Background(), f.store); err != nil {
		return nil, err
	}
	return f.Stored.Check()
}

// Renew makes the newest version of the key authenticate the file, if it is
// authenticated.
func (f *File) Renew(ctx context.Context) error { return authkv.Renew(ctx, f.store) }

// Close waits for what is under way and closes the file.
func (f *File) Close() error { return f.db.Close() }

// Snapshot writes the current records to w, as a file that can be opened.
func (f *File) Snapshot(w io.Writer) error { return f.db.Snapshot(w) }

// explain adds what to do about an error of a file.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, ErrInUse):
		return fmt.Errorf("enroll: another process uses %s: stop it or wait, and try again: %w", path, err)
	case errors.Is(err, kv.ErrEmpty):
		return proof.Fail(ErrDamaged, "%s is empty: restore a backup, or remove it to begin anew", path)
	case errors.Is(err, kv.ErrUnfinished):
		return proof.Fail(ErrDamaged, "writing %s was interrupted, and a part of the enrollments is missing there: remove it, and write it again", path)
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("enroll: %s cannot be used: restore it from a backup: %w", path, err)
	}
	return fmt.Errorf("enroll: %w", err)
}
