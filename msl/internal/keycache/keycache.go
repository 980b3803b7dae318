// Package keycache keeps opened keys for the next message that needs them.
package keycache

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// A Count counts who uses keys. It begins with Start.
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

// Drop takes a user away, and reports whether that was the last.
func (c *Count) Drop() bool { return c.n.Add(-1) == 0 }

// A Value counts who uses it, and closes its keys when nobody does.
type Value interface {
	Acquire() bool // false once it is closed
	Release()
}

// A Cache holds the values that were used last, each with a reference of its
// own, so that an entry never closes the keys of a message in flight. It is
// safe for many goroutines.
type Cache[K comparable, V Value] struct {
	max   int
	stale func(V) bool // may be nil

	mu      sync.Mutex
	entries map[K]*list.Element
	order   *list.List // front is the newest
	closed  bool
}

type entry[K comparable, V Value] struct {
	key   K
	value V
}

// New makes a cache of at most max values. A value that stale reports is dropped
// when its turn comes.
func New[K comparable, V Value](max int, stale func(V) bool) *Cache[K, V] {
	return &Cache[K, V]{max: max, stale: stale, entries: map[K]*list.Element{}, order: list.New()}
}

// Get returns a value with a reference for the caller to release.
func (c *Cache[K, V]) Get(key K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return v, false
	}
	v = e.Value.(entry[K, V]).value
	if !v.Acquire() {
		c.remove(e)
		return v, false
	}
	c.order.MoveToFront(e)
	return v, true
}

// Put remembers a value, with a reference of the cache's own.
func (c *Cache[K, V]) Put(key K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !v.Acquire() {
		return
	}
	if old, ok := c.entries[key]; ok {
		c.remove(old)
	}
	c.entries[key] = c.order.PushFront(entry[K, V]{key, v})
	for c.order.Len() > c.max || c.oldestIsStale() {
		c.remove(c.order.Back())
	}
}

// Delete forgets a value.
func (c *Cache[K, V]) Delete(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok {
		c.remove(e)
	}
}

// Len is the number of values.
func (c *Cache[K, V]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}

// Close forgets every value, and takes no more.
func (c *Cache[K, V]) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
}

func (c *Cache[K, V]) oldestIsStale() bool {
	e := c.order.Back()
	return c.stale != nil && e != nil && c.stale(e.Value.(entry[K, V]).value)
}

func (c *Cache[K, V]) remove(e *list.Element) {
	old := c.order.Remove(e).(entry[K, V])
	delete(c.entries, old.key)
	old.value.Release()
}
