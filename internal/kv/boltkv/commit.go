package boltkv

import (
	"errors"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A group lets writes that wait for the disk share a transaction: while one transaction
// is synced, further writes collect for the next. A single write does not wait for
// others.
type group struct {
	mu      sync.Mutex
	waiting []*write
	running bool
}

// A write is done when its function returned nil and the transaction was synced, or when
// the function returned an error, which only its own caller receives.
type write struct {
	fn   func(kv.Tx) error
	err  error
	done chan struct{}
}

var (
	errNothingToWrite = errors.New("nothing to write")
	errSpoiled        = errors.New("a function failed after it had written")
)

// write waits until fn has run and its changes are on disk. It commits a single write itself: a
// goroutine for each would cost a third of the processor time.
func (d *DB) write(fn func(kv.Tx) error) error {
	w := &write{fn: fn, done: make(chan struct{})}
	g := &d.writes
	g.mu.Lock()
	first := !g.running
	g.running = true
	if !first {
		g.waiting = append(g.waiting, w)
	}
	g.mu.Unlock()
	if first {
		d.commit([]*write{w})
		if next := g.next(); next != nil {
			go d.writeWaiting(next)
		}
	}
	<-w.done
	return w.err
}

// next returns the writes that wait. Without any, the next write is the first one again.
func (g *group) next() []*write {
	g.mu.Lock()
	defer g.mu.Unlock()
	writes := g.waiting
	g.waiting, g.running = nil, writes != nil
	return writes
}

func (d *DB) writeWaiting(writes []*write) {
	for ; writes != nil; writes = d.writes.next() {
		for len(writes) > 0 {
			writes = d.commit(writes)
		}
	}
}

// commit runs writes in one transaction. A write that fails after changing something
// spoils the transaction: that write is done, and the others are returned to run again.
func (d *DB) commit(writes []*write) (again []*write) {
	at := -1
	err := d.update(func(t *bbolt.Tx) error {
		wrote, own := false, &tx{tx: t, layout: &d.layout}
		for i, w := range writes {
			own.wrote = false
			if w.err = w.fn(own); w.err != nil && own.wrote {
				at = i
				return errSpoiled
			}
			wrote = wrote || own.wrote
		}
		if !wrote {
			return errNothingToWrite // so nothing needs syncing
		}
		if d.finish != nil {
			return d.finish(own)
		}
		return nil
	})
	if err == errSpoiled {
		close(writes[at].done)
		return append(writes[:at:at], writes[at+1:]...)
	}
	for _, w := range writes {
		if w.err == nil && err != errNothingToWrite {
			w.err = err
		}
		close(w.done)
	}
	return nil
}
