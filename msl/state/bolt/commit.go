package bolt

import (
	"errors"
	"sync"

	"go.etcd.io/bbolt"
)

// A group lets writes that wait for the disk share a transaction: while one is
// synced, the next collects. A write that is alone waits for nobody.
type group struct {
	db *bbolt.DB

	mu      sync.Mutex
	waiting []*write
	running bool
}

// A write is done when its function returned nil and the transaction was
// synced. A function that returns an error must not have written anything: the
// error is for its caller alone, and the others go on.
type write struct {
	fn   func(*bbolt.Tx) error
	err  error
	done chan struct{}
}

var errNothingToWrite = errors.New("nothing to write")

func (g *group) do(fn func(*bbolt.Tx) error) error {
	w := &write{fn: fn, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	if !g.running {
		g.running = true
		go g.run()
	}
	g.mu.Unlock()
	<-w.done
	return w.err
}

func (g *group) run() {
	for {
		g.mu.Lock()
		writes := g.waiting
		g.waiting = nil
		g.running = len(writes) > 0
		g.mu.Unlock()
		if len(writes) == 0 {
			return
		}
		g.commit(writes)
	}
}

func (g *group) commit(writes []*write) {
	err := update(g.db, func(tx *bbolt.Tx) error {
		failed := 0
		for _, w := range writes {
			if w.err = w.fn(tx); w.err != nil {
				failed++
			}
		}
		if failed == len(writes) {
			return errNothingToWrite // and so nothing to sync
		}
		return nil
	})
	for _, w := range writes {
		if w.err == nil {
			w.err = err
		}
		close(w.done)
	}
}
