package boltkv

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Layout describes the purpose of a file and its contents.
type Layout struct {
	// Kind is stored in the file: a file of another kind is [kv.ErrFormat].
	Kind string
	// Name denotes the file in errors, such as "state file".
	Name string
	// Tables lists the tables whose records have checksums. The table [kv.Settings] also
	// has them and need not be listed.
	Tables []string
	// Plain lists the tables of files made before there were checksums: their records
	// have none. If such tables exist, a file without a format record is accepted and
	// gets one.
	Plain []string
	// Derived lists tables without checksums that follow from the others. A file may lack
	// them: they read as empty while it is checked, and are created, empty, before Open
	// returns. The caller of Open compares them with the rest, and fills them.
	Derived []string
	// Check checks the records when a file is opened, in addition to their checksums.
	// Nil means no further check.
	Check func(kv.Reader) error
	// Strict makes an empty file [kv.ErrEmpty]. Otherwise an empty file counts as new.
	Strict bool
	// Newest is the last version of such files that this program knows, zero means the
	// first; see [DB.Raise].
	Newest int
	// LockWait is how long to wait for another process; zero means forever.
	LockWait time.Duration
	// Explain rewrites an error of a file for the user. The error text already contains
	// the path, unless it is [kv.ErrInUse], [kv.ErrEmpty] or [kv.ErrDamaged].
	Explain func(path string, err error) error
}

// plainVersion is the first version of files.
const plainVersion = 1

const (
	formatTable = kv.Settings
	formatKey   = "format"
)

// format is the record that identifies a file. It has no checksum, so that every
// version can read it.
type format struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
}

// A marking is how a file identifies itself.
type marking int

const (
	nothing marking = iota // the file is empty
	unmarked
	marked
)

// prepare initializes a new file, or checks the kind and contents of an existing one.
func (l *Layout) prepare(db *bbolt.DB, there bool) error {
	var found marking
	err := view(db, func(t *bbolt.Tx) (err error) {
		found, err = l.verify(t)
		return err
	})
	switch {
	case err != nil:
		return err
	case found == marked:
		return l.addDerived(db)
	case found == unmarked:
		return errors.Join(update(db, l.mark), l.addDerived(db))
	case there && l.Strict:
		return kv.ErrEmpty
	}
	return update(db, l.fill)
}

func (l *Layout) fill(t *bbolt.Tx) error {
	for _, name := range slices.Concat(l.Tables, l.Plain, l.Derived) {
		if _, err := t.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	return l.mark(t)
}

// addDerived makes the derived tables that a file of an earlier version lacks.
func (l *Layout) addDerived(db *bbolt.DB) error {
	lacks := false
	err := view(db, func(t *bbolt.Tx) error {
		lacks = slices.ContainsFunc(l.Derived, func(name string) bool { return t.Bucket([]byte(name)) == nil })
		return nil
	})
	if err != nil || !lacks {
		return err
	}
	return update(db, func(t *bbolt.Tx) (err error) {
		for _, name := range l.Derived {
			_, errName := t.CreateBucketIfNotExists([]byte(name))
			err = errors.Join(err, errName)
		}
		return err
	})
}

func (l *Layout) mark(t *bbolt.Tx) error {
	b, err := t.CreateBucket([]byte(formatTable))
	if err != nil {
		return err
	}
	return l.putFormat(b, plainVersion)
}

func (l *Layout) putFormat(b *bbolt.Bucket, version int) error {
	value, err := json.Marshal(format{Kind: l.Kind, Version: version})
	if err != nil {
		return err
	}
	return b.Put([]byte(formatKey), value)
}

// Raise makes a file one of that version at least, so that programs which know only earlier
// ones refuse it.
func (d *DB) Raise(version int) error {
	var found format
	err := d.view(func(t *bbolt.Tx) (err error) {
		found, err = d.layout.readFormat(t)
		return err
	})
	if err == nil && found.Version < version {
		err = d.update(func(t *bbolt.Tx) error {
			return d.layout.putFormat(t.Bucket([]byte(formatTable)), version)
		})
	}
	if err != nil {
		return d.layout.Explain(d.path, err)
	}
	return nil
}

// verify reads everything: a damaged file must not look like one in which less
// happened.
func (l *Layout) verify(t *bbolt.Tx) (marking, error) {
	if first, _ := t.Cursor().First(); first == nil {
		return nothing, nil
	}
	found := marked
	if t.Bucket([]byte(formatTable)) == nil && len(l.Plain) > 0 {
		found = unmarked
	} else if err := l.verifyFormat(t); err != nil {
		return found, err
	}
	if err := l.verifyTables(t); err != nil {
		return found, err
	}
	if l.Check == nil {
		return found, nil
	}
	return found, l.Check(&tx{tx: t, layout: l})
}

func (l *Layout) verifyTables(t *bbolt.Tx) error {
	wanted, found := slices.Concat(l.Tables, l.Plain), 0
	err := t.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if string(name) == formatTable || b != nil && slices.Contains(l.Derived, string(name)) {
			return nil
		}
		if b == nil || !slices.Contains(wanted, string(name)) {
			return damage("it has an unknown part")
		}
		found++
		return b.ForEach(func(k, v []byte) error {
			_, err := l.payload(string(name), k, v)
			return err
		})
	})
	if err == nil && found != len(wanted) {
		err = damage("it lacks a part")
	}
	return err
}

func (l *Layout) verifyFormat(t *bbolt.Tx) error {
	f, err := l.readFormat(t)
	switch {
	case err != nil:
		return err
	case f.Kind != l.Kind:
		return fmt.Errorf("%w: it is of the kind %q, not %q: name another file", kv.ErrFormat, f.Kind, l.Kind)
	case f.Version > l.newest():
		return fmt.Errorf("%w: version %d, and this program knows %d: use a newer msl-hsm", kv.ErrFormat, f.Version, l.newest())
	case f.Version < plainVersion:
		return damage("unknown version %d", f.Version)
	}
	return nil
}

func (l *Layout) newest() int { return max(l.Newest, plainVersion) }

func (l *Layout) readFormat(t *bbolt.Tx) (f format, err error) {
	b := t.Bucket([]byte(formatTable))
	if b == nil {
		return f, fmt.Errorf("%w: it was not made by msl-hsm", kv.ErrFormat)
	}
	if err := json.Unmarshal(b.Get([]byte(formatKey)), &f); err != nil {
		return f, damage("it does not say its format")
	}
	return f, nil
}
