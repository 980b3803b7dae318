package serverside

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A glance queries a device or a cluster at most now and then, however many callers there
// are and however long it takes. The zero value queries at the first look.
type glance[T any] struct {
	mu      sync.Mutex
	began   time.Time     // of the newest query
	running chan struct{} // closed when that is answered
	value   T
	err     error
}

// look returns the result of ask, which is called unless that was done within lately. It
// waits a while for the result. The time is when ask was called.
func (g *glance[T]) look(ctx context.Context, lately time.Duration, ask func() (T, error)) (value T, at time.Time, err error) {
	g.mu.Lock()
	if g.running == nil || g.ended() && time.Since(g.began) > lately {
		g.began, g.running = time.Now(), make(chan struct{})
		go g.use(g.running, ask)
	}
	running, began := g.running, g.began
	g.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-running:
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.value, began, g.err
	case <-timer.C:
	case <-ctx.Done():
	}
	return value, began, fmt.Errorf("it has not answered for %v", time.Since(began).Round(time.Millisecond))
}

func (g *glance[T]) ended() bool {
	select {
	case <-g.running:
		return true
	default:
		return false
	}
}

func (g *glance[T]) use(done chan struct{}, ask func() (T, error)) {
	value, err := ask()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.value, g.err = value, err
	close(done)
}
