package kvtest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Memory is a [kv.Store] for tests of packages that use one. The zero value is empty
// and accepts any table. It runs each function twice and discards the effects of the
// first run, as a database with optimistic transactions may.
type Memory struct {
	mu     sync.RWMutex
	tables map[string]map[string]string
}

var _ kv.Store = (*Memory)(nil)

// View implements [kv.Store].
func (m *Memory) View(ctx context.Context, fn func(kv.Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	_ = fn(memoryTx(m.tables))
	return fn(memoryTx(m.tables))
}

// Update implements [kv.Store].
func (m *Memory) Update(ctx context.Context, fn func(kv.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = fn(m.clone())
	changed := m.clone()
	if err := fn(changed); err != nil {
		return err
	}
	m.tables = changed
	return nil
}

func (m *Memory) clone() memoryTx {
	c := memoryTx{}
	for name, table := range m.tables {
		c[name] = maps.Clone(table)
	}
	return c
}

type memoryTx map[string]map[string]string

func (t memoryTx) Get(table string, key []byte) ([]byte, error) {
	value, ok := t[table][string(key)]
	if !ok {
		return nil, nil
	}
	return []byte(value), nil
}

func (t memoryTx) Range(table string, from, to []byte, limit int) (page []kv.Pair, err error) {
	var keys []string
	for k := range t[table] {
		if k >= string(from) && (to == nil || k < string(to)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys[:min(limit, len(keys))] {
		page = append(page, kv.Pair{Key: []byte(k), Value: []byte(t[table][k])})
	}
	return page, nil
}

func (t memoryTx) Put(table string, key, value []byte) error {
	if len(key) == 0 {
		return errors.New("kvtest: a key is empty")
	}
	if t[table] == nil {
		t[table] = map[string]string{}
	}
	t[table][string(key)] = string(value)
	return nil
}

func (t memoryTx) Delete(table string, key []byte) error {
	delete(t[table], string(key))
	return nil
}
