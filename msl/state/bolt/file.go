package bolt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
)

// Errors of this package, wrapped with what they are about. Test them with
// errors.Is.
var (
	// ErrInUse: another process has the file open.
	ErrInUse = errors.New("file is in use")
	// ErrDamaged: the file is not what this package wrote.
	ErrDamaged = errors.New("file is damaged")
	// ErrFormat: the file is of a newer version, or for another purpose.
	ErrFormat = errors.New("file has another format")
	// ErrEmpty: the file has no state in it: something cut it off, or touched it
	// into being.
	ErrEmpty = errors.New("file is empty")
	// ErrExists: there is an entity, user or file of that name.
	ErrExists = errors.New("exists already")
	// ErrUnknown: there is no entity or user of that name.
	ErrUnknown = errors.New("not registered")
	// ErrRevoked: the name was revoked and must not come back by accident.
	ErrRevoked = errors.New("is revoked")
	// ErrNotRevoked is a revocation that cannot be taken back.
	ErrNotRevoked = errors.New("is not revoked")
)

const (
	formatVersion = 1
	formatBucket  = "format"
	formatKey     = "format"
	fileMode      = 0o600
)

// A purpose is what a file is for, and what stands in it.
type purpose struct {
	kind     string
	buckets  []string
	lockWait time.Duration
	holder   string // who has it open when we cannot have it
	remedy   string // what to do with a damaged file
	strict   bool   // an empty file is no new one
}

// An opening is what to expect at the path.
type opening int

const (
	either opening = iota
	find           // a file that is there
	create         // none
)

// format is the record that tells what a file is. It has no checksum, so that
// every version can read it.
type format struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
}

// open opens or makes a file. An existing one is checked first: bbolt trusts
// the pages it maps and may crash the process on a bad one.
func open(path string, p purpose, how opening) (*bbolt.DB, error) {
	there, size, err := examine(path)
	switch {
	case err != nil:
		return nil, err
	case !there && how == find:
		return nil, fmt.Errorf("bolt: open %s: %w", path, fs.ErrNotExist)
	case there && how == create:
		return nil, fmt.Errorf("bolt: %s %w", path, ErrExists)
	case there && size == 0 && p.strict:
		return nil, p.explain(path, ErrEmpty)
	case size > 0:
		if err := p.inspect(path); err != nil {
			return nil, p.explain(path, err)
		}
	}
	db, err := openMapped(path, &bbolt.Options{Timeout: p.lockWait, NoStatistics: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, p.explain(path, err)
	}
	if err = p.prepare(db, there); err == nil && size == 0 {
		err = atomicfile.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		db.Close()
		return nil, p.explain(path, err)
	}
	return db, nil
}

// examine returns whether there is a file, and its size.
func examine(path string) (there bool, size int64, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		dir := filepath.Dir(path)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return false, 0, fmt.Errorf("bolt: no directory %s for the state file: make it, with mode 0700: %w", dir, err)
		}
		return false, 0, nil
	}
	if err != nil {
		return false, 0, fmt.Errorf("bolt: open state file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return false, 0, fmt.Errorf("bolt: %s is not a regular file: name a file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return false, 0, fmt.Errorf("bolt: %s can be used by others (mode %#o): run chmod 600 on it", path, info.Mode().Perm())
	}
	return true, info.Size(), nil
}

// inspect checks the pages of an existing file under a shared lock. Opening
// read-only makes bbolt read the meta pages alone, and those have checksums.
func (p purpose) inspect(path string) error {
	_, err := p.freeIn(path)
	return err
}

// freeIn also returns how many bytes of pages are free.
func (p purpose) freeIn(path string) (int64, error) {
	var file *os.File
	db, err := openMapped(path, &bbolt.Options{ReadOnly: true, Timeout: p.lockWait, OpenFile: keepFile(&file)})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	checked, err := readPages(file, info.Size(), db.Info().PageSize)
	if err != nil {
		return 0, err
	}
	return int64(len(checked.isFree)) * checked.page, nil
}

// keepFile keeps hold of the file that bbolt opens.
func keepFile(kept **os.File) func(string, int, os.FileMode) (*os.File, error) {
	return func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
		f, err = os.OpenFile(name, flag, mode)
		*kept = f
		return f, err
	}
}

// openMapped opens the file; what bbolt finds wrong with its bytes is
// ErrDamaged. While it waited for the lock, the file may have been moved away by
// who had it.
func openMapped(path string, options *bbolt.Options) (db *bbolt.DB, err error) {
	var file *os.File
	if open := options.OpenFile; open == nil {
		options.OpenFile = keepFile(&file)
	} else {
		options.OpenFile = func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			file, err = open(name, flag, mode)
			return file, err
		}
	}
	err = guard(func() (err error) {
		db, err = bbolt.Open(path, fileMode, options)
		return err
	})
	var system *fs.PathError
	switch {
	case err == nil && !isAt(file, path):
		return nil, errors.Join(ErrInUse, db.Close())
	case err == nil, errors.As(err, &system), errors.Is(err, ErrDamaged):
		return db, err
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, ErrInUse
	}
	return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
}

// isAt reports whether an open file is still the one at path.
func isAt(file *os.File, path string) bool {
	own, errOwn := file.Stat()
	there, err := os.Stat(path)
	return errOwn == nil && err == nil && os.SameFile(own, there)
}

// prepare fills a new file, or checks what an existing one is and has.
func (p purpose) prepare(db *bbolt.DB, there bool) error {
	empty := false
	err := view(db, func(tx *bbolt.Tx) error {
		if k, _ := tx.Cursor().First(); k == nil {
			empty = true
			return nil
		}
		return p.verify(tx)
	})
	switch {
	case err != nil || !empty:
		return err
	case there && p.strict:
		return ErrEmpty
	}
	return update(db, p.fill)
}

func (p purpose) fill(tx *bbolt.Tx) error {
	for _, name := range p.buckets {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	b, err := tx.CreateBucket([]byte(formatBucket))
	if err != nil {
		return err
	}
	value, err := json.Marshal(format{Kind: p.kind, Version: formatVersion})
	if err != nil {
		return err
	}
	return b.Put([]byte(formatKey), value)
}

// verify reads everything: a file that was damaged must not look like one in
// which less happened.
func (p purpose) verify(tx *bbolt.Tx) error {
	if err := p.verifyFormat(tx); err != nil {
		return err
	}
	found := 0
	err := tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if string(name) == formatBucket {
			return nil
		}
		if b == nil || !slices.Contains(p.buckets, string(name)) {
			return fmt.Errorf("%w: it has an unknown part", ErrDamaged)
		}
		found++
		return b.ForEach(func(k, v []byte) error {
			_, err := unframe(string(name), k, v)
			return err
		})
	})
	if err == nil && found != len(p.buckets) {
		err = fmt.Errorf("%w: it lacks a part", ErrDamaged)
	}
	return err
}

func (p purpose) verifyFormat(tx *bbolt.Tx) error {
	b := tx.Bucket([]byte(formatBucket))
	if b == nil {
		return fmt.Errorf("%w: it was not made by msl-hsm", ErrFormat)
	}
	var f format
	if err := json.Unmarshal(b.Get([]byte(formatKey)), &f); err != nil {
		return fmt.Errorf("%w: it does not tell its format", ErrDamaged)
	}
	if f.Kind != p.kind {
		return fmt.Errorf("%w: it is for a %q, not for a %s: name another file", ErrFormat, f.Kind, p.kind)
	}
	if f.Version > formatVersion {
		return fmt.Errorf("%w: version %d, and this program knows %d: use a newer msl-hsm", ErrFormat, f.Version, formatVersion)
	}
	if f.Version != formatVersion {
		return fmt.Errorf("%w: unknown version %d", ErrDamaged, f.Version)
	}
	return nil
}

// explain says what to do about an error of opening a file.
func (p purpose) explain(path string, err error) error {
	switch {
	case errors.Is(err, ErrInUse):
		return fmt.Errorf("bolt: %s uses %s: stop it or wait, and try again: %w", p.holder, path, err)
	case errors.Is(err, ErrEmpty):
		return fmt.Errorf("bolt: %s: %w: restore a backup, or remove it and make a new one", path, err)
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("bolt: %s cannot be used: %s: %w", path, p.remedy, err)
	}
	return fmt.Errorf("bolt: open %s: %w", path, err)
}

// guard turns a crash on damaged or vanished pages, which bbolt maps into
// memory, into an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
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
