package boltkv

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Layout says what a file is for, and what is in it.
type Layout struct {
	// Kind is in the file: a file of another kind is [kv.ErrFormat].
	Kind string
	// Name is what an error calls the file, such as "state file".
	Name string
	// Tables have records with checksums, as [kv.Settings] has, which need not be
	// named here.
	Tables []string
	// Plain tables are those of files that were made before there were checksums:
	// their records have none. With such tables a file without a record of its
	// format is taken, and gets one.
	Plain []string
	// Check says what is wrong with the records when a file is opened, beside
	// their checksums. Nil asks for nothing.
	Check func(kv.Reader) error
	// Strict says that an empty file is [kv.ErrEmpty]. Otherwise it is new.
	Strict bool
	// LockWait is for how long to wait for another process; zero is for ever.
	LockWait time.Duration
	// Explain makes an error of a file one for its user. The error has the path
	// in its text already, unless it is [kv.ErrInUse], [kv.ErrEmpty] or
	// [kv.ErrDamaged].
	Explain func(path string, err error) error
}

const (
	formatVersion = 1
	formatTable   = kv.Settings
	formatKey     = "format"
)

// format is the record that tells what a file is. It has no checksum, so that
// every version can read it.
type format struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
}

// A marking is how a file tells what it is.
type marking int

const (
	nothing marking = iota // there is nothing in it
	unmarked
	marked
)

// prepare fills a new file, or checks what an existing one is and has.
func (l *Layout) prepare(db *bbolt.DB, there bool) error {
	var found marking
	err := view(db, func(t *bbolt.Tx) (err error) {
		found, err = l.verify(t)
		return err
	})
	switch {
	case err != nil || found == marked:
		return err
	case found == unmarked:
		return update(db, l.mark)
	case there && l.Strict:
		return kv.ErrEmpty
	}
	return update(db, l.fill)
}

func (l *Layout) fill(t *bbolt.Tx) error {
	for _, name := range slices.Concat(l.Tables, l.Plain) {
		if _, err := t.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	return l.mark(t)
}

func (l *Layout) mark(t *bbolt.Tx) error {
	b, err := t.CreateBucket([]byte(formatTable))
	if err != nil {
		return err
	}
	value, err := json.Marshal(format{Kind: l.Kind, Version: formatVersion})
	if err != nil {
		return err
	}
	return b.Put([]byte(formatKey), value)
}

// verify reads everything: a file that was damaged must not look like one in
// which less happened.
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
		if string(name) == formatTable {
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
	b := t.Bucket([]byte(formatTable))
	if b == nil {
		return fmt.Errorf("%w: it was not made by msl-hsm", kv.ErrFormat)
	}
	var f format
	if err := json.Unmarshal(b.Get([]byte(formatKey)), &f); err != nil {
		return damage("it does not tell its format")
	}
	if f.Kind != l.Kind {
		return fmt.Errorf("%w: it is of the kind %q, not %q: name another file", kv.ErrFormat, f.Kind, l.Kind)
	}
	if f.Version > formatVersion {
		return fmt.Errorf("%w: version %d, and this program knows %d: use a newer msl-hsm", kv.ErrFormat, f.Version, formatVersion)
	}
	if f.Version != formatVersion {
		return damage("unknown version %d", f.Version)
	}
	return nil
}
