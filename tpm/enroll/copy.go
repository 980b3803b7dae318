package enroll

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
)

// Snapshot writes the records of this moment to w, as a file that can be opened.
func (f *File) Snapshot(w io.Writer) error {
	return guard(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			_, err := tx.WriteTo(w)
			return err
		})
	})
}

// CheckCopy reads all of a file that [File.Snapshot] wrote, and counts the records by
// their state: [ErrDamaged].
func CheckCopy(content []byte) (map[State]int, error) {
	dir, err := os.MkdirTemp("", "msl-hsm-enrollments-*")
	if err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "copy")
	if err := atomicfile.Create(path, content, 0o600); err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	f, err := OpenFile(path)
	if err != nil {
		return nil, err
	}
	states, err := f.Check()
	return states, errors.Join(err, f.Close())
}

// Restore puts a copy in the place of the file at path, which no process may have
// open: [ErrInUse]. What was there is kept beside it, under the name that is
// returned; it is empty where nothing was. Whoever restores an old copy undoes the
// decisions of the time since.
func Restore(content []byte, path string) (aside string, err error) {
	if _, err := CheckCopy(content); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		old, err := OpenFile(path) // so that nobody else opens it meanwhile
		if errors.Is(err, ErrInUse) {
			return "", err
		}
		if err == nil { // else it is damaged, and that is why
			defer old.Close()
		}
		if aside, err = atomicfile.Aside(path, ".before-restore"); err != nil {
			return "", fmt.Errorf("enroll: keep the old file: %w", err)
		}
	}
	return aside, atomicfile.Replace(path, content, 0o600)
}
