package enroll

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A File is [Records] in one file on the local disk, with go.etcd.io/bbolt. It
// has mode 0600 and holds no secrets.
type File struct {
	Stored
	db *boltkv.DB
}

// layout is that of files from before there were checksums of every entry: records
// have one of their own, and the rest has to lead to them. Opening sets fits, whether the
// derived tables are those of the records.
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
		LockWait: 2 * time.Second,
		Explain:  explain,
	}
}

// OpenFile opens the file at path, or makes it in a directory that is there. All
// of it is read and checked: [ErrDamaged]. So is one with nothing in it. One process
// has it open at a time: [ErrInUse], after two seconds.
func OpenFile(path string) (*File, error) {
	fits := true
	db, err := boltkv.Open(path, layout(&fits), boltkv.OpenOrCreate)
	if err != nil {
		return nil, err
	}
	f := &File{Stored{db}, db}
	if !fits {
		err = f.reindex()
	}
	if err != nil {
		return nil, errors.Join(explain(path, err), f.Close())
	}
	return f, nil
}

// Close waits for what is under way and closes the file.
func (f *File) Close() error { return f.db.Close() }

// Snapshot writes the records of this moment to w, as a file that can be opened.
func (f *File) Snapshot(w io.Writer) error { return f.db.Snapshot(w) }

// explain says what to do about an error of a file.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, ErrInUse):
		return fmt.Errorf("enroll: another process uses %s: stop it or wait, and try again: %w", path, err)
	case errors.Is(err, kv.ErrEmpty):
		return proof.Fail(ErrDamaged, "%s is empty: restore a backup, or remove it to begin anew", path)
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("enroll: %s cannot be used: restore it from a backup: %w", path, err)
	}
	return fmt.Errorf("enroll: %w", err)
}
