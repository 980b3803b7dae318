package enroll

import (
	"bytes"
	"errors"

	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
)

// CheckCopy reads all of a file written by [File.Snapshot], and counts the records by
// state. A damaged file is [ErrDamaged]. It does not check the authentication of the
// file.
func CheckCopy(content []byte) (states map[State]int, err error) {
	err = layout(new(bool)).OnCopy(bytes.NewReader(content), func(path string) (err error) {
		states, err = checkFile(path)
		return err
	})
	return states, err
}

func checkFile(path string) (map[State]int, error) {
	f, err := unguarded(path, boltkv.OpenExisting)
	if err != nil {
		return nil, err
	}
	states, err := f.Check()
	return states, errors.Join(err, f.Close())
}

// CheckCopy is [CheckCopy] for a file that must be authentic.
func (f Files) CheckCopy(content []byte) (states map[State]int, err error) {
	err = layout(new(bool)).OnCopy(bytes.NewReader(content), func(path string) error {
		file, err := f.open(path, boltkv.OpenExisting)
		if err != nil {
			return err
		}
		states, err = file.Check()
		return errors.Join(err, file.Close())
	})
	return states, err
}

// Restore replaces the file at path with a copy. If a process has the file open, the
// error is [ErrInUse]. The old file is kept beside it, under the name returned in aside,
// which is empty if there was none. Restoring an old copy undoes all decisions made since
// then.
func Restore(content []byte, path string) (aside string, err error) {
	return Files{}.Restore(content, path)
}

// Restore is [Restore] with authentication. The copy must be as authentic as the file
// that it becomes.
func (f Files) Restore(content []byte, path string) (aside string, err error) {
	return layout(new(bool)).Restore(bytes.NewReader(content), path, func(copied string) error {
		file, err := f.open(copied, boltkv.OpenExisting)
		if err != nil {
			return err
		}
		_, err = file.Check()
		return errors.Join(err, file.Close())
	})
}
