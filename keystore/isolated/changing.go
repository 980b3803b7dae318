package isolated

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/keystore"
)

var _ keystore.Changing = (*Store)(nil)

// Refresh makes the store in the child look up provisioned keys again.
func (s *Store) Refresh(labels ...string) error {
	return s.ask(opRefresh, func(m message) message {
		m = m.number(uint64(len(labels)))
		for _, label := range labels {
			m = m.text(label)
		}
		return m
	}, nil)
}

// SealWith chooses the version that seals, in this child and those that follow.
func (s *Store) SealWith(label string, version uint32) error {
	s.chosen.set(label, version)
	return s.ask(opSealWith, func(m message) message { return m.text(label).number(uint64(version)) }, nil)
}

// A chosen has the versions that a store was told to seal with, by label.
type chosen struct {
	mu       sync.Mutex
	versions map[string]uint32
}

func (c *chosen) set(label string, version uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.versions == nil {
		c.versions = map[string]uint32{}
	}
	c.versions[label] = version
}

// message returns the versions as a child is told of them before it opens its store.
func (c *chosen) message() (m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, label := range slices.Sorted(maps.Keys(c.versions)) {
		m = m.text(label).number(uint64(c.versions[label]))
	}
	return m
}

// choose has a store seal with the versions in a message. A store that cannot choose has refused
// that when it was told first.
func choose(store keystore.Store, told []byte) error {
	changing, ok := store.(keystore.Changing)
	for f := (&fields{rest: told}); ok && len(f.rest) > 0; {
		label, version := f.text(), uint32(f.number())
		if f.bad {
			return errMalformed
		}
		if err := changing.SealWith(label, version); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return nil
}

func refresh(s *server, f *fields, m message) (message, error) {
	var labels []string
	for n := f.number(); n > 0 && !f.bad; n-- {
		labels = append(labels, f.text())
	}
	store, err := storeFor[keystore.Changing](s, f)
	if err != nil {
		return nil, err
	}
	return m, store.Refresh(labels...)
}

func sealWith(s *server, f *fields, m message) (message, error) {
	label, version := f.text(), uint32(f.number())
	store, err := storeFor[keystore.Changing](s, f)
	if err != nil {
		return nil, err
	}
	return m, store.SealWith(label, version)
}
