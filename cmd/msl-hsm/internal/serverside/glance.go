package serverside

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A glance asks something of a device or a cluster now and then, however many want to know
// and however long it takes. The zero value asks at the first look.
type glance[T any] struct {
	mu      sync.Mutex
	began   time.Time     // of the newest question
	running chan struct{} // closed when that was answered
	value   T
	err     error
}

// look returns what ask returned, which is asked unless that was done lately. It waits for
// the answer for a while. The time is when that was asked.
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
