package state

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
)

// passwordsAtATime bounds the memory of password checks: each takes 64 MiB.
const passwordsAtATime = 4

// A hashing bounds the memory of password hashes: how many are made at once, and how
// many that were made the garbage collector finds. It would wait for several times
// what is alive, and that has the hashes that are being made.
type hashing struct {
	places  chan struct{}
	garbage atomic.Int32
}

func newHashing(atATime int) *hashing { return &hashing{places: make(chan struct{}, atATime)} }

// enter waits for a place. The caller leaves when it has no more use for the hash.
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

// leave collects the garbage of half as many hashes as there are places, since others
// end while that goes on, and of the last one before a pause.
func (h *hashing) leave() {
	if int(h.garbage.Add(1)) >= max(1, cap(h.places)/2) || len(h.places) == 1 {
		h.garbage.Store(0)
		runtime.GC()
	}
	<-h.places
}
