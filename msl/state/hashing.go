package state

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
)

// passwordsAtATime bounds the memory of password checks: each takes 64 MiB by default.
const passwordsAtATime = 4

// A hashing bounds the memory of password hashes: how many are computed concurrently, and
// how much garbage they leave. By itself, the garbage collector would wait for several
// times the live memory, which includes the hashes in progress.
type hashing struct {
	places  chan struct{}
	garbage atomic.Int32
}

func newHashing(atATime int) *hashing { return &hashing{places: make(chan struct{}, atATime)} }

// enter waits for a place. The caller must call leave when it no longer needs the hash.
func (h *hashing) enter(ctx context.Context) error {
	select {
	case h.places <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("state: wait to hash a password: %w", ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		<-h.places
		return fmt.Errorf("state: wait to hash a password: %w", err)
	}
	return nil
}

// leave runs the garbage collector after half as many hashes as there are places, since
// others end during the collection, and after the last hash before a pause.
func (h *hashing) leave() {
	if int(h.garbage.Add(1)) >= max(1, cap(h.places)/2) || len(h.places) == 1 {
		h.garbage.Store(0)
		runtime.GC()
	}
	<-h.places
}
