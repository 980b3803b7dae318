package enroll

import (
	"bytes"
	"errors"
)

// CheckCopy reads all of a file that [File.Snapshot] wrote, and counts the records by
// their state: [ErrDamaged].
func CheckCopy(content []byte) (states map[State]int, err error) {
	err = layout().OnCopy(bytes.NewReader(content), func(path string) (err error) {
		states, err = checkFile(path)
		return err
	})
	return states, err
}

func checkFile(path string) (map[State]int, error) {
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
	return layout().Restore(bytes.NewReader(content), path, func(copied string) error {
		_, err := checkFile(copied)
		return err
	})
}
