package msl

import (
	"context"
	"sync"
)

// A MemoryState is a State that ends with the process: for tests and experiments. The
// zero value is ready. After a restart, recorded messages can be replayed and superseded
// master tokens renewed again.
type MemoryState struct {
	mu        sync.Mutex
	largest   map[tokenID]int64
	sequences map[tokenID]Sequence
	revoked   map[string]bool
}

type tokenID struct {
	identity string
	serial   int64
}

// Revoke revokes an entity.
func (m *MemoryState) Revoke(identity string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.revoked == nil {
		m.revoked = map[string]bool{}
	}
	m.revoked[CanonicalName(identity)] = true
}

// Revoked knows only entities, not users.
func (m *MemoryState) Revoked(_ context.Context, identity, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.revoked[CanonicalName(identity)] {
		return ErrMasterTokenIdentityRevoked
	}
	return nil
}

// AcceptID judges and records a non-replayable id.
func (m *MemoryState) AcceptID(_ context.Context, identity string, serial, id int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := tokenID{identity, serial}
	if err := CheckNonReplayableID(m.largest[key], id); err != nil {
		return err
	}
	if m.largest == nil {
		m.largest = map[tokenID]int64{}
	}
	m.largest[key] = id
	return nil
}

// Renewable judges a sequence number.
func (m *MemoryState) Renewable(_ context.Context, identity string, serial, sequence int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, known := m.sequences[tokenID{identity, serial}]
	_, err := s.Renew(known, sequence)
	return err
}

// Renew judges and records a renewal.
func (m *MemoryState) Renew(_ context.Context, identity string, serial, sequence int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := tokenID{identity, serial}
	s, known := m.sequences[key]
	s, err := s.Renew(known, sequence)
	if err != nil {
		return 0, err
	}
	if m.sequences == nil {
		m.sequences = map[tokenID]Sequence{}
	}
	m.sequences[key] = s
	return s.Newest, nil
}

// memoryClientState keeps only the counters.
type memoryClientState struct {
	mu  sync.Mutex
	ids map[int64]int64
}

func (*memoryClientState) Load(context.Context) (ClientRecord, error) { return ClientRecord{}, nil }
func (*memoryClientState) Save(context.Context, ClientRecord) error   { return nil }

func (m *memoryClientState) NextID(_ context.Context, serial int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ids == nil {
		m.ids = map[int64]int64{}
	}
	m.ids[serial] = next(m.ids[serial])
	return m.ids[serial], nil
}
