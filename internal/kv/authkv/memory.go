package authkv

import (
	"bytes"
	"errors"
	"fmt"
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
func (m *memory) view(view func(func(kv.Reader) error) error, fn func(kv.Reader) error) error {
	for {
		least := m.newest()
		err := view(func(r kv.Reader) error {
			b, err := r.Get(kv.Settings, []byte(rootKey))
			if err == nil {
				err = m.knows(b, least)
			}
			if err != nil {
				return err
			}
			return fn(r)
		})
		if err != errUnknownRoot {
			return err
		}
		if m.newest() == least {
			return errReplaced()
		}
	}
}

func errReplaced() error {
	return fmt.Errorf("authkv: %w: the state was replaced or put back while this process had it open", kv.ErrForged)
}
