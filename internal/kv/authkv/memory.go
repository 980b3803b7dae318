package authkv

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A memory has the roots of a store that only this process changes. A root that it did
// not make was put there by someone else.
type memory struct {
	mu   sync.Mutex
	made map[uint64][]byte // the newest roots, by their change counts
	done uint64            // change count of the newest one certainly in the store
}

// remembered is how many roots are kept: readers may still see earlier ones.
const remembered = 64

// errUnknownRoot: the root is not among those remembered, possibly because it is too old.
var errUnknownRoot = errors.New("unknown root")

// remember returns a memory of the root in a store.
func remember(b []byte) *memory {
	changes := changesIn(b)
	return &memory{made: map[uint64][]byte{changes: bytes.Clone(b)}, done: changes}
}

// sealed records a root that is about to be stored.
func (m *memory) sealed(changes uint64, b []byte) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made[changes] = b
	delete(m.made, changes-remembered)
}

// committed records that a root, or a later one, was stored.
func (m *memory) committed(changes uint64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = max(m.done, changes)
}

// newest returns the change count of a stored root, or of a later one.
func (m *memory) newest() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done
}

// knows checks that a root was made here, and is not older than the changes already
// stored.
func (m *memory) knows(b []byte, least uint64) error {
	if len(b) < headSize {
		return errUnknownRoot
	}
	changes := changesIn(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	if changes < least || !bytes.Equal(b, m.made[changes]) {
		return errUnknownRoot
	}
	return nil
}

// view reads the store. It may see an earlier state whose root has been forgotten in the
// meantime.
func (m *memory) view(view func(func(kv.Reader) error) error, tables []string, fn func(kv.Reader) error) error {
	for {
		var from reader
		least := m.newest()
		err := view(func(r kv.Reader) error {
			from = reader{Reader: r, memory: m, least: least, tables: tables}
			if err := fn(&from); err != nil || from.asked {
				return err
			}
			return from.check(kv.Settings) // a caller that reads nothing asks whether it is the same store
		})
		if !from.unknown {
			return err
		}
		if m.newest() == least {
			return errReplaced()
		}
	}
}

// A reader checks that the root was made here before it reads a record that is in the sum.
// Other records are read unchecked: no root says who wrote them.
type reader struct {
	kv.Reader
	memory  *memory
	least   uint64
	tables  []string
	asked   bool // something was read
	known   bool // the root was made here
	unknown bool // it was not
}

// Get implements [kv.Reader].
func (r *reader) Get(table string, key []byte) ([]byte, error) {
	if err := r.check(table); err != nil {
		return nil, err
	}
	return r.Reader.Get(table, key)
}

// Range implements [kv.Reader].
func (r *reader) Range(table string, from, to []byte, limit int) ([]kv.Pair, error) {
	if err := r.check(table); err != nil {
		return nil, err
	}
	return r.Reader.Range(table, from, to, limit)
}

func (r *reader) check(table string) error {
	r.asked = true
	if r.known || table != kv.Settings && !slices.Contains(r.tables, table) {
		return nil
	}
	b, err := r.Reader.Get(kv.Settings, []byte(rootKey))
	if err != nil {
		return err
	}
	err = r.memory.knows(b, r.least)
	r.known, r.unknown = err == nil, err != nil
	return err
}

func errReplaced() error {
	return fmt.Errorf("authkv: %w: the state was replaced or put back while this process had it open", kv.ErrForged)
}
