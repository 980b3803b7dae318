package boltkv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/kv"
)

const fileMode = 0o600

// An Opening says whether a file must, may or must not exist at a path.
type Opening int

// The values of Opening.
const (
	OpenOrCreate Opening = iota // the file may exist
	OpenExisting                // the file must exist, else fs.ErrNotExist
	CreateNew                   // the file must not exist, else [kv.ErrExists]
)

// Open opens the file at path, or creates it in an existing directory. An existing file
// is checked first: bbolt trusts the pages it maps and may crash the process on a
// damaged one.
func Open(path string, l Layout, how Opening) (*DB, error) {
	l.Strict = l.Strict || how == OpenExisting // a mere reader does not turn it into a database
	there, size, err := l.examine(path)
	switch {
	case err != nil:
		return nil, l.Explain(path, err)
	case !there && how == OpenExisting:
		return nil, l.Explain(path, fmt.Errorf("open %s: %w", path, fs.ErrNotExist))
	case there && how == CreateNew:
		return nil, l.Explain(path, fmt.Errorf("%s %w", path, kv.ErrExists))
	case there && size == 0 && l.Strict:
		return nil, l.Explain(path, kv.ErrEmpty)
	}
	db, err := l.open(path, there, size)
	if err != nil {
		return nil, l.Explain(path, located(path, err))
	}
	d := &DB{db: db, path: path, layout: l}
	if d.opened, err = os.Stat(path); err == nil {
		err = d.view(func(t *bbolt.Tx) error {
			d.newest.Store(int64(t.ID()))
			return nil
		})
	}
	if err != nil {
		return nil, l.Explain(path, errors.Join(located(path, err), db.Close()))
	}
	return d, nil
}

func (l *Layout) open(path string, there bool, size int64) (*bbolt.DB, error) {
	if size > 0 {
		if _, err := l.freeIn(path); err != nil {
			return nil, err
		}
	}
	dir, err := os.Open(filepath.Dir(path)) // before creating a file whose name could not be made durable
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	options := &bbolt.Options{Timeout: l.LockWait, NoStatistics: true, FreelistType: bbolt.FreelistMapType}
	if !there {
		options.OpenFile = atomicfile.Open
	}
	db, err := openMapped(path, options)
	if err != nil && !there {
		return nil, errors.Join(err, abandon(path))
	}
	if err != nil {
		return nil, err
	}
	if err = l.prepare(db, there); err == nil && size == 0 {
		err = atomicfile.SyncOpen(dir)
	}
	if err == nil {
		return db, nil
	}
	if !there && db.Close() == nil { // left incomplete by a full disk
		err = errors.Join(err, abandon(path))
	}
	db.Close()
	return nil, err
}

// abandon removes an incomplete file without tables, unless another process is using it.
func abandon(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lock(f); errors.Is(err, kv.ErrInUse) {
		return nil
	} else if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil || info.Size() > 4*int64(os.Getpagesize()) || !isAt(f, path) {
		return err
	}
	return os.Remove(path)
}

// located adds the path to an error, unless Explain does that.
func located(path string, err error) error {
	if errors.Is(err, kv.ErrInUse) || errors.Is(err, kv.ErrEmpty) || errors.Is(err, kv.ErrDamaged) {
		return err
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// examine reports whether a file exists, and returns its size.
func (l *Layout) examine(path string) (there bool, size int64, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		dir := filepath.Dir(path)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return false, 0, fmt.Errorf("no directory %s for the %s: make it, with mode 0700: %w", dir, l.Name, err)
		}
		return false, 0, nil
	}
	if err != nil {
		return false, 0, fmt.Errorf("open %s: %w", l.Name, err)
	}
	if !info.Mode().IsRegular() {
		return false, 0, fmt.Errorf("%s is not a regular file: name a file", path)
	}
	if info.Mode().Perm()&0o077 != 0 && !isBolt(path) { // its mode is not this package's business
		return false, 0, fmt.Errorf("%s is not a %s: name another file", path, l.Name)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return false, 0, fmt.Errorf("%s can be used by others (mode %#o): run chmod 600 on it", path, info.Mode().Perm())
	}
	return true, info.Size(), nil
}

// isBolt reports whether a file begins like bbolt's. It is true for unreadable files, and
// for an empty file, which becomes one.
func isBolt(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	start := make([]byte, pageHeader+4)
	n, err := io.ReadFull(f, start)
	return err == io.EOF || begins(start[:n])
}

// begins reports whether bytes begin like bbolt's files: with a page header and a number.
// If the first page is damaged, those are in the second one.
func begins(start []byte) bool {
	for at := 0; at+pageHeader+4 <= len(start); at = max(minPageSize, 2*at) {
		if binary.NativeEndian.Uint32(start[at+pageHeader:]) == metaMagic {
			return true
		}
	}
	return false
}

// freeIn checks the pages of an existing file under a shared lock, and returns how many
// bytes are in free pages. When opening read-only, bbolt reads only the meta pages,
// which have checksums.
func (l *Layout) freeIn(path string) (int64, error) {
	var file *os.File
	db, err := openMapped(path, &bbolt.Options{ReadOnly: true, Timeout: l.LockWait, OpenFile: keepFile(&file)})
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

// keepFile returns an open function for bbolt that also stores the opened file in kept.
func keepFile(kept **os.File) func(string, int, os.FileMode) (*os.File, error) {
	return func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
		f, err = os.OpenFile(name, flag, mode)
		*kept = f
		return f, err
	}
}

// openMapped opens the file; damage that bbolt detects is [kv.ErrDamaged]. While it
// waited for the lock, the process that held it may have moved the file away.
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
		return nil, errors.Join(kv.ErrInUse, db.Close())
	case err == nil, errors.As(err, &system), errors.Is(err, kv.ErrDamaged):
		return db, err
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, kv.ErrInUse
	}
	return nil, damage("%w", err)
}

// isAt reports whether an open file is still the one at path.
func isAt(file *os.File, path string) bool {
	own, errOwn := file.Stat()
	there, err := os.Stat(path)
	return errOwn == nil && err == nil && os.SameFile(own, there)
}
