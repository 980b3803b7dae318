package enroll

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// Records are what an authority knows of devices, and belong to one [Authority]
// at a time. A [File] keeps them.
type Records interface {
	// View calls fn with a state that does not change.
	View(ctx context.Context, fn func(Tx) error) error
	// Update calls fn. All that it changed is durable when Update returns, or
	// none of it if there was an error.
	Update(ctx context.Context, fn func(Tx) error) error
}

// A Tx reads and changes records.
type Tx interface {
	// Get returns a record, or [ErrUnknown].
	Get(ID) (Record, error)
	// Put adds or replaces a record. A name that another one has is [ErrName].
	Put(Record) error
	// Delete removes a record, if it is there.
	Delete(ID) error
	// BySerial finds the record of a certificate, by its hexadecimal serial
	// number, or [ErrUnknown].
	BySerial(serial string) (ID, error)
	// ByName finds the record with a name, or [ErrUnknown].
	ByName(name string) (ID, error)
	// Pending counts the records that are pending.
	Pending() (int, error)
	// All calls fn for every record, by rising ID.
	All(fn func(Record) error) error
}

// The parts of a file.
const (
	bucketRecords = "enrollments" // by ID
	bucketNames   = "names"       // ID by name
	bucketSerials = "serials"     // ID by serial number
	bucketPending = "pending"     // empty, by ID
)

// A File is [Records] in one file on the local disk, with go.etcd.io/bbolt. It
// has mode 0600 and holds no secrets.
type File struct {
	db   *bbolt.DB
	path string
}

// OpenFile opens the file at path, or makes it in a directory that is there. All
// of it is read and checked: [ErrDamaged], after which this process may hold on to
// it until it ends. One process has it open at a time: [ErrInUse], after two
// seconds.
func OpenFile(path string) (*File, error) {
	if err := checkFile(path); err != nil {
		return nil, err
	}
	f := &File{path: path}
	err := f.open()
	if err == nil {
		err = f.prepare()
	}
	if err != nil {
		return nil, errors.Join(openError(path, err), f.Close())
	}
	return f, nil
}

func checkFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("enroll: open enrollments: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("enroll: %s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("enroll: %s is accessible to others: run chmod 600 on it", path)
	case info.Size() == 0:
		return proof.Fail(ErrDamaged, "%s is empty: restore a backup, or remove it to begin anew", path)
	}
	return nil
}

func (f *File) open() error {
	err := guard(func() (err error) {
		f.db, err = bbolt.Open(f.path, 0o600, &bbolt.Options{Timeout: 2 * time.Second, NoStatistics: true})
		return err
	})
	if err != nil {
		f.db = nil
	}
	return err
}

func openError(path string, err error) error {
	var system *fs.PathError
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return proof.Fail(ErrInUse, "%s", path)
	case errors.As(err, &system), errors.Is(err, ErrDamaged):
		return fmt.Errorf("enroll: open %s: %w", path, err)
	}
	return proof.Fail(ErrDamaged, "%s: restore it from a backup: %w", path, err)
}

// prepare makes what is missing and reads everything.
func (f *File) prepare() error {
	err := guard(func() error {
		return f.db.Update(func(tx *bbolt.Tx) error {
			if info, err := os.Stat(f.path); err != nil || info.Size() < tx.Size() {
				return proof.Fail(ErrDamaged, "its end is missing")
			}
			for _, name := range []string{bucketRecords, bucketNames, bucketSerials, bucketPending} {
				if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	if err := atomicfile.SyncDir(filepath.Dir(f.path)); err != nil {
		return err
	}
	return f.View(context.Background(), func(tx Tx) error { return tx.All(func(Record) error { return nil }) })
}

// Close waits for what is under way and closes the file.
func (f *File) Close() error {
	if f.db == nil {
		return nil
	}
	if err := f.db.Close(); err != nil {
		return fmt.Errorf("enroll: close %s: %w", f.path, err)
	}
	return nil
}

// View implements [Records].
func (f *File) View(ctx context.Context, fn func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return guard(func() error { return f.db.View(func(tx *bbolt.Tx) error { return fn(fileTx{tx}) }) })
}

// Update implements [Records].
func (f *File) Update(ctx context.Context, fn func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return guard(func() error { return f.db.Update(func(tx *bbolt.Tx) error { return fn(fileTx{tx}) }) })
}

type fileTx struct{ tx *bbolt.Tx }

func (t fileTx) bucket(name string) *bbolt.Bucket { return t.tx.Bucket([]byte(name)) }

// Get implements [Tx].
func (t fileTx) Get(id ID) (Record, error) {
	value := t.bucket(bucketRecords).Get(id[:])
	if value == nil {
		return Record{}, proof.Fail(ErrUnknown, "EK hash %s", id)
	}
	return unframe(id, value)
}

// Put implements [Tx].
func (t fileTx) Put(r Record) error {
	if other := t.bucket(bucketNames).Get([]byte(r.Name)); r.Name != "" && other != nil && string(other) != string(r.ID[:]) {
		return proof.Fail(ErrName, "%s is the name of EK hash %x", r.Name, other)
	}
	if err := t.Delete(r.ID); err != nil {
		return err
	}
	entries, err := entriesOf(r)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := t.bucket(e.bucket).Put(e.key, e.value); err != nil {
			return fmt.Errorf("enroll: record: %w", err)
		}
	}
	return nil
}

type entry struct {
	bucket     string
	key, value []byte
}

// entriesOf lists a record and what leads to it.
func entriesOf(r Record) ([]entry, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("enroll: record: %w", err)
	}
	entries := []entry{{bucketRecords, r.ID[:], frame(r.ID, payload)}}
	if r.Name != "" {
		entries = append(entries, entry{bucketNames, []byte(r.Name), r.ID[:]})
	}
	for _, c := range r.Certificates {
		entries = append(entries, entry{bucketSerials, []byte(c.Serial), r.ID[:]})
	}
	if r.State == Pending {
		entries = append(entries, entry{bucketPending, r.ID[:], []byte{}})
	}
	return entries, nil
}

// Delete implements [Tx].
func (t fileTx) Delete(id ID) error {
	r, err := t.Get(id)
	if errors.Is(err, ErrUnknown) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.Name != "" {
		err = t.bucket(bucketNames).Delete([]byte(r.Name))
	}
	for _, c := range r.Certificates {
		err = errors.Join(err, t.bucket(bucketSerials).Delete([]byte(c.Serial)))
	}
	return errors.Join(err, t.bucket(bucketPending).Delete(id[:]), t.bucket(bucketRecords).Delete(id[:]))
}

// BySerial implements [Tx].
func (t fileTx) BySerial(serial string) (id ID, err error) {
	value := t.bucket(bucketSerials).Get([]byte(serial))
	if len(value) != len(id) {
		return id, proof.Fail(ErrUnknown, "certificate %s", proof.Shorten(serial))
	}
	return ID(value), nil
}

// Pending implements [Tx].
func (t fileTx) Pending() (n int, err error) {
	return n, t.bucket(bucketPending).ForEach(func([]byte, []byte) error { n++; return nil })
}

// ByName implements [Tx].
func (t fileTx) ByName(name string) (ID, error) {
	b := t.bucket(bucketNames).Get([]byte(name))
	if len(b) != sha256.Size {
		return ID{}, proof.Fail(ErrUnknown, "no device has this name")
	}
	return ID(b), nil
}

// All implements [Tx].
func (t fileTx) All(fn func(Record) error) error {
	return t.bucket(bucketRecords).ForEach(func(k, v []byte) error {
		if len(k) != sha256.Size {
			return proof.Fail(ErrDamaged, "a record has a bad key")
		}
		r, err := unframe(ID(k), v)
		if err != nil {
			return err
		}
		return fn(r)
	})
}

// frame puts a checksum before a record, which covers its place too.
func frame(id ID, payload []byte) []byte {
	sum := sha256.Sum256(append(id[:], payload...))
	return append(sum[:], payload...)
}

func unframe(id ID, value []byte) (r Record, err error) {
	if len(value) < sha256.Size || string(frame(id, value[sha256.Size:])) != string(value) {
		return r, proof.Fail(ErrDamaged, "record %s does not fit its checksum", id)
	}
	if err := json.Unmarshal(value[sha256.Size:], &r); err != nil || r.ID != id {
		return r, proof.Fail(ErrDamaged, "record %s does not decode", id)
	}
	return r, nil
}

// guard turns a crash on damaged pages, which bbolt maps into memory, into an
// error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = proof.Fail(ErrDamaged, "%v", p)
		}
	}()
	return fn()
}
