// Package keycache keeps opened keys for the next message that needs them.
package keycache

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// A Count counts the users of keys. It must be started with Start.
type Count struct{ n atomic.Int32 }

// Start gives the count its first user.
func (c *Count) Start() { c.n.Store(1) }

// Acquire adds a user. It fails once the last one is gone.
func (c *Count) Acquire() bool {
	for {
		n := c.n.Load()
		if n <= 0 {
			return false
		}
		if c.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Drop removes a user, and reports whether that was the last.
func (c *Count) Drop() bool { return c.n.Add(-1) == 0 }

// A Value counts its users, and closes its keys when there are none left.
type Value interface {
	Acquire() bool // false once the value is closed
	Release()
}

// A Cache holds the most recently used values and, in free places, values that were
// only offered. It has its own reference to each, so that removing an entry never
// closes the keys of a message in flight. It is safe for concurrent use.
type Cache[K comparable, V Value] struct {
	max   int
	stale func(V) bool // may be nil

	mu      sync.Mutex
	entries map[K]place
	used    *list.List // front is the newest
	offered *list.List
	dropped []V // removed since the lock was acquired
	closed  bool
}

type entry[K comparable, V Value] struct {
	key   K
	value V
}

// A place is the position of an entry.
type place struct {
	list *list.List
	*list.Element
}

// New returns a cache of at most max values. The oldest value is dropped if stale reports
// it as stale.
func New[K comparable, V Value](max int, stale func(V) bool) *Cache[K, V] {
	return &Cache[K, V]{max: max, stale: stale, entries: map[K]place{}, used: list.New(), offered: list.New()}
}

// Get returns a value with a reference for the caller to release. The caller need not
// be authenticated yet: the order of entries stays the same until [Cache.Put].
func (c *Cache[K, V]) Get(key K) (v V, ok bool) {
	c.mu.Lock()
	defer c.unlock()
	p, ok := c.entries[key]
	if !ok {
		return v, false
	}
	v = p.Value.(entry[K, V]).value
	if !v.Acquire() {
		c.remove(p)
		return v, false
	}
	return v, true
}

// Put stores a value that was just used, with the cache's own reference.
func (c *Cache[K, V]) Put(key K, v V) { c.put(c.used, key, v) }

// Offer stores a value that may never be used. Offered values take only free places, and
// at most an eighth of all.
func (c *Cache[K, V]) Offer(key K, v V) { c.put(c.offered, key, v) }

func (c *Cache[K, V]) put(to *list.List, key K, v V) {
	c.mu.Lock()
	defer c.unlock()
	old, there := c.entries[key]
	if there && old.list == to && any(old.Value.(entry[K, V]).value) == any(v) {
		to.MoveToFront(old.Element)
		c.trim()
		return
	}
	if c.closed || !v.Acquire() {
		return
	}
	if there {
		c.remove(old)
	}
	c.entries[key] = place{to, to.PushFront(entry[K, V]{key, v})}
	c.trim()
}

// trim makes room, removing offered values first.
func (c *Cache[K, V]) trim() {
	for c.offered.Len() > max(1, c.max/8) || c.offered.Len() > 0 && c.len() > c.max || c.oldestIsStale(c.offered) {
		c.remove(place{c.offered, c.offered.Back()})
	}
	for c.used.Len() > c.max || c.oldestIsStale(c.used) {
		c.remove(place{c.used, c.used.Back()})
	}
}

// Delete removes a value.
func (c *Cache[K, V]) Delete(key K) {
	c.mu.Lock()
	defer c.unlock()
	if p, ok := c.entries[key]; ok {
		c.remove(p)
	}
}

// Len returns the number of values.
func (c *Cache[K, V]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.len()
}

func (c *Cache[K, V]) len() int { return c.used.Len() + c.offered.Len() }

// Clear removes every value.
func (c *Cache[K, V]) Clear() {
	c.mu.Lock()
	defer c.unlock()
	for _, p := range c.entries {
		c.remove(p)
	}
}

// Close removes every value; the cache accepts no more.
func (c *Cache[K, V]) Close() {
	c.mu.Lock()
	defer c.unlock()
	c.closed = true
	for _, p := range c.entries {
		c.remove(p)
	}
}

func (c *Cache[K, V]) oldestIsStale(l *list.List) bool {
	e := l.Back()
	return c.stale != nil && e != nil && c.stale(e.Value.(entry[K, V]).value)
}

func (c *Cache[K, V]) remove(p place) {
	old := p.list.Remove(p.Element).(entry[K, V])
	delete(c.entries, old.key)
	c.dropped = append(c.dropped, old.value)
}

// unlock unlocks, then releases the dropped values: a device may take long to destroy a
// key, which must not delay callers that need another one.
func (c *Cache[K, V]) unlock() {
	dropped := c.dropped
	c.dropped = nil
	c.mu.Unlock()
	for _, v := range dropped {
		v.Release()
	}
}
