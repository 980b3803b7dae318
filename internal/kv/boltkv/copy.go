package boltkv

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/throwaway"
)

// Begin returns a reader of the whole content of from. Data of any size that does not
// begin like a database is [kv.ErrDamaged] before it is copied; an empty file is
// accepted.
func Begin(from io.Reader) (io.Reader, error) {
	const firstPages = 128 << 10
	r := bufio.NewReaderSize(from, firstPages)
	switch start, err := r.Peek(firstPages); {
	case err != nil && err != io.EOF:
		return nil, err
	case len(start) > 0 && !begins(start):
		return nil, damage("it is not a file of this kind")
	}
	return r, nil
}

// OnCopy calls fn with the path of a temporary copy of a file, so that a backup can be
// read without changing it. Errors of fn are returned unchanged.
func (l Layout) OnCopy(from io.Reader, fn func(path string) error) error {
	copied, err := throwaway.File("", "msl-hsm-copy-")
	if err != nil {
		return l.Explain("", err)
	}
	defer beside{copied}.discard()
	if _, err := io.Copy(copied, from); err != nil {
		return l.Explain(copied.Name(), fmt.Errorf("copy a file: %w", err))
	}
	return fn(copied.Name())
}

// Restore replaces the file at path with a backup. If another process has the file
// open, it returns [kv.ErrInUse]. It copies the backup and lets prepare check and
// change the copy first. A previous file at path is kept under the name aside, which is
// empty if there was none. Errors of prepare are returned unchanged.
func (l Layout) Restore(backup io.Reader, path string, prepare func(copied string) error) (aside string, err error) {
	path, err = settled(path)
	if err != nil {
		return "", l.Explain(path, err)
	}
	copied, err := copyBeside(backup, path)
	if err != nil {
		return "", l.Explain(path, err)
	}
	defer copied.discard()
	if err := prepare(copied.Name()); err != nil {
		return "", err
	}
	if aside, err = replace(path, copied); err != nil {
		return aside, l.Explain(path, err)
	}
	return aside, nil
}

// replace replaces the file at path, which it keeps locked so that no other process opens
// it in between. A file exists at path at all times.
func replace(path string, copied beside) (aside string, err error) {
	old, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", copied.become(path)
	}
	if err != nil {
		return "", err
	}
	defer old.Close()
	if err := lock(old); err != nil {
		return "", located(path, err)
	}
	if aside, err = atomicfile.Aside(path, ".before-restore"); err != nil {
		return "", fmt.Errorf("keep the old file: %w", err)
	}
	return aside, copied.become(path)
}

// Compact rewrites the file at path without the space of removed records, and returns its
// sizes in bytes. If another process has the file open, it returns [kv.ErrInUse]. The new
// file replaces the old one only if verify, which is called with its path, returns nil.
func (l Layout) Compact(path string, verify func(copied string) error) (before, after int64, err error) {
	if path, err = settled(path); err != nil {
		return 0, 0, l.Explain(path, err)
	}
	d, err := Open(path, l, OpenExisting)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	copied, err := newBeside(path, "compact")
	if err != nil {
		return 0, 0, l.Explain(path, err)
	}
	defer copied.discard()
	if err := compactInto(copied.Name(), d.db); err != nil {
		return 0, 0, l.Explain(path, fmt.Errorf("compact: %w", err))
	}
	if err := verify(copied.Name()); err != nil {
		return 0, 0, err
	}
	before, errBefore := sizeOf(path)
	after, errAfter := sizeOf(copied.Name())
	if err = errors.Join(errBefore, errAfter); err == nil {
		err = copied.become(path)
	}
	if err != nil {
		return 0, 0, l.Explain(path, err)
	}
	return before, after, nil
}

func compactInto(path string, from *bbolt.DB) error {
	const bytesAtATime = 1 << 20
	to, err := bbolt.Open(path, fileMode, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true})
	if err != nil {
		return err
	}
	err = guard(func() error { return bbolt.Compact(to, from, bytesAtATime) })
	return errors.Join(err, to.Close())
}

func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// settled resolves symbolic links: a replacement must replace the file, not a link to it.
func settled(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	if _, told := os.Stat(path); err != nil && told != nil { // which names the file, also of a link to itself
		err = told
	}
	return real, err
}

// beside is a temporary file of mode 0600, in the same directory as the file it may
// replace.
type beside struct{ *os.File }

func newBeside(path, what string) (beside, error) {
	f, err := throwaway.File(filepath.Dir(path), filepath.Base(path)+"."+what+"-")
	return beside{f}, err
}

func copyBeside(from io.Reader, path string) (beside, error) {
	to, err := newBeside(path, "restore")
	if err != nil {
		return to, err
	}
	if _, err := io.Copy(to, from); err != nil {
		to.discard()
		return to, fmt.Errorf("copy the backup: %w", err)
	}
	return to, nil
}

// become syncs the file and then gives it its name.
func (b beside) become(path string) error {
	if err := b.Sync(); err != nil {
		return err
	}
	if err := os.Rename(b.Name(), path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// discard removes the file, unless it has been renamed by become.
func (b beside) discard() {
	b.Close()
	throwaway.Remove(b.Name())
}
