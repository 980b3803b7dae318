package tpm

import (
	"sync"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// SessionKeys are the open keys of a store that are not in a file.
type sessionKeys struct {
	storage *storage

	mu     sync.Mutex // guards the fields below
	keys   map[*key]struct{}
	closed bool
}

// adopt makes a session key of an object.
func (s *sessionKeys) adopt(a keystore.Algorithm, o *object, locked bool) (keystore.Key, error) {
	k := &key{storage: s.storage, sessions: s, algorithm: a, object: o, locked: locked}
	if !a.Secret() {
		e, err := inspect(a, o.public)
		if err == nil {
			k.public, err = e.key()
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.add(k); err != nil {
		return nil, err
	}
	return k.typed(), nil
}

func (s *sessionKeys) add(k *key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errStoreClosed()
	}
	s.keys[k] = struct{}{}
	return nil
}

func (s *sessionKeys) remove(k *key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, k)
}

func (s *sessionKeys) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keys)
}

// close closes the keys, and returns the objects to flush.
func (s *sessionKeys) close() (all []*object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for k := range s.keys {
		k.closed.Store(true)
		all = append(all, k.object)
	}
	clear(s.keys)
	return all
}
