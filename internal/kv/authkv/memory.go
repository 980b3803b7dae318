package authkv

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A memory has the roots of a store that only this process changes. One that it did not make
// was put there by somebody else.
type memory struct {
	mu   sync.Mutex
	made map[uint64][]byte // the newest roots, by their changes
	done uint64            // changes of the newest that is in the store for sure
}

// remembered is how many roots are kept: readers may still see former ones.
const remembered = 64

// errUnknownRoot: it is not one of those remembered. It may be too old for that.
var errUnknownRoot = errors.New("unknown root")

// remember returns a memory of the root that is in a store.
func remember(b []byte) *memory {
	changes := changesIn(b)
	return &memory{made: map[uint64][]byte{changes: bytes.Clone(b)}, done: changes}
}

// sealed notes a root that is going to be in the store.
func (m *memory) sealed(changes uint64, b []byte) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made[changes] = b
	delete(m.made, changes-remembered)
}

// committed notes that a root was in the store, or one that followed it.
func (m *memory) committed(changes uint64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = max(m.done, changes)
}

// newest returns the changes of a root that is in the store, or one that followed it.
func (m *memory) newest() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done
}

// knows makes sure that a root was made here, and is not older than the changes that were in
// the store already.
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

// view reads the store, of which a former moment may be seen that was forgotten meanwhile.
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
