package kvtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Memory is a [kv.Store] for tests of packages that use one. The zero value is empty
// and accepts any table. It runs each function twice and discards the effects of the
// first run, as a database with optimistic transactions may, and refuses an Update of more
// than [kv.MaxChanges].
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
	_ = fn(&memoryTx{tables: m.tables})
	return fn(&memoryTx{tables: m.tables})
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
	if n := len(changed.changes); n > kv.MaxChanges+1 { // a store on top of this one may add one
		return fmt.Errorf("kvtest: %d changes in one Update: not every store accepts more than %d", n, kv.MaxChanges)
	}
	m.tables = changed.tables
	return nil
}

func (m *Memory) clone() *memoryTx {
	c := map[string]map[string]string{}
	for name, table := range m.tables {
		c[name] = maps.Clone(table)
	}
	return &memoryTx{tables: c, changes: map[string]bool{}}
}

type memoryTx struct {
	tables  map[string]map[string]string
	changes map[string]bool
}

func (t *memoryTx) Get(table string, key []byte) ([]byte, error) {
	value, ok := t.tables[table][string(key)]
	if !ok {
		return nil, nil
	}
	return []byte(value), nil
}

func (t *memoryTx) Prefetch(string, ...[]byte) error { return nil }

func (t *memoryTx) Range(table string, from, to []byte, limit int) (page []kv.Pair, err error) {
	var keys []string
	for k := range t.tables[table] {
		if k >= string(from) && (to == nil || k < string(to)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys[:min(limit, len(keys))] {
		page = append(page, kv.Pair{Key: []byte(k), Value: []byte(t.tables[table][k])})
	}
	return page, nil
}

func (t *memoryTx) Put(table string, key, value []byte) error {
	if len(key) == 0 {
		return errors.New("kvtest: a key is empty")
	}
	if t.tables[table] == nil {
		t.tables[table] = map[string]string{}
	}
	t.tables[table][string(key)] = string(value)
	t.changes[table+"/"+string(key)] = true
	return nil
}

func (t *memoryTx) Delete(table string, key []byte) error {
	delete(t.tables[table], string(key))
	t.changes[table+"/"+string(key)] = true
	return nil
}
